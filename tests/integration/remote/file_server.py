# SPDX-License-Identifier: GPL-3.0-or-later
"""Serves a folder over HTTPS, as any web server would do it for published repositories.

python3 -m remote.file_server FOLDER CERTIFICATE KEY PORT
"""

from __future__ import annotations

import functools
import http.server
import ssl
import sys


def serve(folder: str, certificate: str, key: str, port: int) -> None:
    """Serves on the loopback address until it is killed."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
