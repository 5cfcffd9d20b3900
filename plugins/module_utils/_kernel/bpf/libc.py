# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The C library, and the system calls that Python's standard library lacks."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# System call numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
_NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298},
    "aarch64": {"bpf": 280, "perf_event_open": 241},
}

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def syscall(name: str, *args: object) -> int:
    """Calls `name` and returns its result; raises OSError with the kernel's errno.

    ENOSYS is raised for an architecture whose numbers are not known here.
    """
    try:
        number = _NUMBERS[os.uname().machine][name]
    except KeyError:
        raise OSError(38, os.strerror(38)) from None
    result = int(_libc.syscall(ctypes.c_long(number), *args))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result


def setns(fd: int, nstype: int) -> None:
    """Moves the calling thread into a namespace (setns(2))."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(nstype)) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def unshare(flags: int) -> None:
    """Gives the calling process namespaces of its own (unshare(2))."""
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def mount(source: str | None, target: str, fstype: str | None, flags: int) -> None:
    """mount(2), without data."""
    encoded = [None if s is None else os.fsencode(s) for s in (source, target, fstype)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), None) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), target)


def filesystem_magic(path: str) -> int:
    """The `f_type` of the file system that `path` lies on (statfs(2), linux/magic.h)."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return int(ctypes.c_ulong.from_buffer(buffer).value)


def format_va_list(fmt: bytes, va_list: int | None) -> bytes:
    """Formats what a C library passes to a printf-like callback (vsnprintf(3)).

    A `va_list` argument arrives as a pointer on x86-64 (array type) and on AArch64 (composite
    larger than 16 bytes), so it can be handed on as it came.
    """
    # Only the first use of a va_list is defined, so there is no second try with more room:
    # libbpf's longest text is a verifier log.
    size = 1 << 20
    buffer = ctypes.create_string_buffer(size)
    _libc.vsnprintf(buffer, ctypes.c_size_t(size), fmt, ctypes.c_void_p(va_list))
    return buffer.value


def open_kprobe_event(pmu_type: int, function: str) -> int:
    """Opens a disabled perf event for a kprobe on `function`; closing it leaves nothing.

    struct perf_event_attr (linux/perf_event.h): type, size, config, …, kprobe_func in config1.
    """
    name = ctypes.create_string_buffer(function.encode())
    attr = bytearray(112)
    struct.pack_into("=II", attr, 0, pmu_type, len(attr))
    attr[40] = 1  # disabled
    struct.pack_into("=Q", attr, 56, ctypes.addressof(name))
    buffer = ctypes.create_string_buffer(bytes(attr), len(attr))
    any_process, first_cpu, no_group, cloexec = -1, 0, -1, 8
    return syscall(
        "perf_event_open",
        buffer,
        ctypes.c_int(any_process),
        ctypes.c_int(first_cpu),
        ctypes.c_int(no_group),
        ctypes.c_ulong(cloexec),
    )
