# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpf(2), and what a look-up needs of it: pins and single entries.

A look-up's time is that of its imports, so this file and what it imports stay small.
"""

from __future__ import annotations

import ctypes
import os
import struct

from .libc import syscall

# enum bpf_cmd
_MAP_LOOKUP_ELEM, _OBJ_PIN, _OBJ_GET = 1, 6, 7
RDONLY = 1 << 3
BPFFS_MAGIC = 0xCAFE4A11
_ENOENT = 2


class Pointers:
    """Keeps the buffers alive whose addresses stand in an attribute."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def to(self, data: bytes | ctypes.Array[ctypes.c_char] | None) -> int:
        if data is None:
            return 0
        buffer = ctypes.create_string_buffer(data, len(data)) if isinstance(data, bytes) else data
        self._kept.append(buffer)
        return ctypes.addressof(buffer)


def call(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One bpf(2) call; a ctypes buffer comes back as the kernel changed it."""
    buffer = (
        ctypes.create_string_buffer(attributes, len(attributes))
        if isinstance(attributes, bytes)
        else attributes
    )
    return syscall("bpf", ctypes.c_int(command), buffer, ctypes.c_uint(len(buffer)))


class closing:  # noqa: N801 a context manager that reads like contextlib's
    """Close a descriptor on the way out."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_exception: object) -> None:
        os.close(self._fd)


def obj_get(path: str, flags: int = 0) -> int:
    """Opens a pin."""
    pointers = Pointers()
    name = pointers.to(os.fsencode(path) + b"\0")
    return call(_OBJ_GET, struct.pack("=QII", name, 0, flags))


def obj_pin(fd: int, path: str) -> None:
    """Pins an open map, program or link in a bpf file system."""
    pointers = Pointers()
    name = pointers.to(os.fsencode(path) + b"\0")
    call(_OBJ_PIN, struct.pack("=QII", name, fd, 0))


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of `key`, None where there is none.

    For a per-CPU map `value_size` is 8-byte aligned size times the number of possible CPUs.
    """
    pointers = Pointers()
    value = ctypes.create_string_buffer(value_size)
    try:
        call(
            _MAP_LOOKUP_ELEM,
            struct.pack("=IxxxxQQQ", fd, pointers.to(key), pointers.to(value), 0),
        )
    except OSError as exc:
        if exc.errno == _ENOENT:
            return None
        raise
    return value.raw
