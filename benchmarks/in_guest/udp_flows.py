# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes new connections with as little of its own work as Python can do with.

UDP: sendmmsg(2), one packet a flow, each to another port: many flows a system call, no socket of
their own.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from benchmarks.in_guest import masquerade
from benchmarks.in_guest.counting import busy

A_CALL = 512
PORTS = 60000

_libc = ctypes.CDLL(None, use_errno=True)
# struct mmsghdr: name, namelen, iov, iovlen, control, controllen, flags, len
_MESSAGE = struct.Struct("=QI4xQQQQi4xI4x")


def send(flows: int) -> int:
    """Return the ns of that many new flows; the packets are made before the clock starts."""
    payload = ctypes.create_string_buffer(b"btfleet", 8)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(payload), 8))
    targets = ctypes.create_string_buffer(16 * flows)
    messages = ctypes.create_string_buffer(_MESSAGE.size * flows)
    for number in range(flows):
        target = struct.pack(
            "=H2sI8x",
            socket.AF_INET,
            struct.pack(">H", 1 + number % PORTS),
            socket.htonl(0xC6120001 + number // PORTS),
        )
        ctypes.memmove(ctypes.addressof(targets) + 16 * number, target, 16)
        message = _MESSAGE.pack(
            *(ctypes.addressof(targets) + 16 * number, 16, ctypes.addressof(vector), 1),
            *(0, 0, 0, 0),
        )
        ctypes.memmove(ctypes.addressof(messages) + _MESSAGE.size * number, message, _MESSAGE.size)
    with (
        masquerade.inside(masquerade.CLIENT),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):

        def send_all() -> None:
            sent = 0
            while sent < flows:
                start = ctypes.c_void_p(ctypes.addressof(messages) + _MESSAGE.size * sent)
                count = min(A_CALL, flows - sent)
                done = _libc.sendmmsg(sock.fileno(), start, ctypes.c_uint(count), 0)
                if done < 0:
                    errno = ctypes.get_errno()
                    raise OSError(errno, os.strerror(errno))
                sent += done

        return busy(send_all)
