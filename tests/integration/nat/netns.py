# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces: enter them, list them, set their sysctls."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import NatError

PREFIX = "btnat-"
ROOT = ""  # the namespace in which the test itself runs
RUN = Path("/run/netns")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_handles: dict[str, int] = {ROOT: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)}
_current = ROOT


def enter(name: str) -> None:
    """Work in the namespace (a name, or a path that opens it) from now on."""
    global _current
    if name == _current:
        return
    if name not in _handles:
        try:
            # RUN / name is name itself when that is an absolute path.
            _handles[name] = os.open(RUN / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NatError(f"namespace {name} is not there: run 'up' first") from error
    if _libc.setns(_handles[name], CLONE_NEWNET) != 0:
        raise NatError(f"cannot enter namespace {name}: {os.strerror(ctypes.get_errno())}")
    _current = name


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Work in a namespace, then come back."""
    previous = _current
    enter(name)
    try:
        yield
    finally:
        enter(previous)


def forget() -> None:
    """Drop the handles of namespaces that were removed."""
    enter(ROOT)
    for name in [name for name in _handles if name != ROOT]:
        os.close(_handles.pop(name))


def inode(name: str) -> int:
    """The number by which the kernel knows a namespace."""
    if name == ROOT:
        return os.fstat(_handles[ROOT]).st_ino
    try:
        return os.stat(RUN / name).st_ino
    except OSError as error:
        raise NatError(f"namespace {name} is not there: run 'up' first") from error


def ours() -> list[str]:
    """The namespaces made by this test."""
    return [name for name in named() if name.startswith(PREFIX)]


def named() -> list[str]:
    """All named namespaces that are mounted."""
    if not RUN.is_dir():
        return []
    device = os.stat("/proc/self/ns/net").st_dev
    return sorted(path.name for path in RUN.iterdir() if path.stat().st_dev == device)


def everywhere() -> dict[int, str]:
    """Every namespace of the host, by inode: its name, or a path that opens it."""
    found = {inode(ROOT): ROOT}
    for name in named():
        found.setdefault(inode(name), name)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                path = process / "ns" / "net"
                found.setdefault(path.stat().st_ino, str(path))
    return found


def write_sysctl(name: str, value: str) -> str | None:
    """Set a sysctl of the current namespace; the value before, None if there is none."""
    path = Path("/proc/sys") / name
    try:
        before = path.read_text().strip()
        if before != value:
            path.write_text(value)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NatError(f"cannot set {name} to {value}: {error.strerror}") from error
    return before
