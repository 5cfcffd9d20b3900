# SPDX-License-Identifier: GPL-3.0-or-later
"""One server in a process of its own, on one CPU: the config service, or one that does nothing.

It writes its port, then a line with its CPU seconds and resident kilobytes for each line it reads.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from btfleet.service import daemon as daemon_
from btfleet.service.certificates import Certificates
from btfleet.service.daemon import Daemon
from btfleet.service.service import NAME, Pool

from benchmarks.remote_config import fleet


@contextmanager
def ours(folder: Path, configs: int, hosts: int) -> Iterator[int]:
    """The config service, refreshed; its port."""
    daemon = Daemon(fleet.prepare(folder, configs, hosts))
    with daemon.running():
        while daemon.refresher.snapshot is None:
            time.sleep(0.1)
        yield daemon.port


@contextmanager
def empty(folder: Path) -> Iterator[int]:
    """The same server, TLS and threads, with a handler that looks at nothing."""
    settings = fleet.prepare(folder, 1, 1)
    server = grpc.server(
        Pool(daemon_.THREADS),
        options=daemon_.OPTIONS,
        maximum_concurrent_rpcs=daemon_.MAX_CALLS,
    )
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda _raw, _context: b"")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(NAME, {"ClientGetConfigs": handler}),)
    )
    credentials = Certificates(settings.tls, lambda _error: None).credentials()
    port = server.add_secure_port(settings.listen, credentials)
    server.start()
    yield port
    server.stop(0).wait()


def usage() -> str:
    """CPU seconds so far, and resident kB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return f"{used.ru_utime + used.ru_stime:.6f} {pages * resource.getpagesize() // 1024}"


def main() -> None:
    """KIND FOLDER CONFIGS HOSTS CPU."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    configs, hosts, cpu = map(int, sys.argv[3:6])
    os.sched_setaffinity(0, {cpu})
    with ours(folder, configs, hosts) if kind == "ours" else empty(folder) as port:
        print(port, flush=True)
        for _line in sys.stdin:
            print(usage(), flush=True)


if __name__ == "__main__":
    main()
