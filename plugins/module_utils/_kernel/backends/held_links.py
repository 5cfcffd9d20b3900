# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the process that holds links which the kernel cannot pin (see `holder`) what it has."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Mapping

SOCKET = "/run/btfleet/holder.sock"
# How a line of drift begins where links are not held
NOT_HELD = "no process holds the links"

_SIZE = 1 << 16
_MOST_LINKS = 64


@dataclass(frozen=True)
class Held:
    """What the holder has: its process, and by token the names and descriptors over there."""

    pid: int
    sets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def send(sock: socket.socket, message: dict[str, object], descriptors: list[int]) -> None:
    rights = array.array("i", descriptors)
    extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    sock.sendmsg([json.dumps(message).encode()], extra)


def receive(sock: socket.socket) -> tuple[dict[str, object], list[int]]:
    room = socket.CMSG_SPACE(_MOST_LINKS * array.array("i").itemsize)
    content, extra, _flags, _address = sock.recvmsg(_SIZE, room)
    descriptors = array.array("i")
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    message = json.loads(content) if content else {}
    return (message if isinstance(message, dict) else {}), list(descriptors)


def ask(
    path: str, message: dict[str, object], descriptors: list[int] | None = None
) -> tuple[dict[str, object], list[int], int] | None:
    """The answer, descriptors that came with it, and the holder's process; None without one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(30)
        try:
            sock.connect(path)
            send(sock, message, descriptors or [])
            answer, received = receive(sock)
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except (FileNotFoundError, ConnectionError, socket.timeout):
            return None
    if not answer.get("ok"):
        return None
    return answer, received, int(struct.unpack("=iii", raw)[0])


def look(path: str = SOCKET) -> Held | None:
    """What is held, None if nobody holds anything. Raises PermissionError."""
    found = ask(path, {"do": "list"})
    if found is None:
        return None
    answer, _none, pid = found
    sets = answer.get("sets")
    return Held(pid, sets if isinstance(sets, dict) else {})
