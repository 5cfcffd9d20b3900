# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking the kernel for the flows of a namespace, or for one of them."""

from __future__ import annotations

import errno
import os
import socket
from typing import Iterator

from . import ctnetlink
from .ctnetlink import NETLINK_NETFILTER, Flow

_DATAGRAM = 1 << 16
_ANSWER_SECONDS = 30


def open_socket(portid: int = 0) -> socket.socket:
    """Return a socket in the calling thread's namespace; with 0 the kernel gives it a port id.

    Raises OSError.
    """
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    sock.bind((portid, 0))
    return sock


class Query:
    """A socket to ask a namespace with, which had `count` flows when it was opened."""

    def __init__(self, sock: socket.socket, count: int) -> None:
        self.count = count
        self._socket = sock
        self._socket.settimeout(_ANSWER_SECONDS)

    def dump(self) -> Iterator[Flow | None]:
        """The namespace's table; None for a flow that could not be read. Raises OSError."""
        if not self.count:  # a dump walks the table of all namespaces
            return
        self._socket.sendto(ctnetlink.dump_request(), (0, 0))
        while True:
            datagram = self._socket.recv(_DATAGRAM)
            for message in ctnetlink.messages(datagram):
                yield message.flow
            code = ctnetlink.end_of_answer(datagram)
            if code is not None:
                if code:
                    raise OSError(code, os.strerror(code))
                return

    def find(self, key: bytes) -> Flow | None:
        """The flow that has this key now, None if there is none. Raises OSError."""
        self._socket.sendto(ctnetlink.get_request(key), (0, 0))
        datagram = self._socket.recv(_DATAGRAM)
        code = ctnetlink.end_of_answer(datagram)
        if code == errno.ENOENT:
            return None
        if code:
            raise OSError(code, os.strerror(code))
        return next((message.flow for message in ctnetlink.messages(datagram)), None)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
