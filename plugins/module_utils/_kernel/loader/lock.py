# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One loader at a time: a lock that says who holds it, and that nobody waits for without end."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import Iterator

from ..errors import LoaderError

LOCK = "/run/btfleet/loader.lock"
# Seconds. A load's own longest wait is 120 s, for a process of the tier netlink
PATIENCE = 240.0
_PAUSE = 0.05


@contextmanager
def held(path: str = LOCK, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock for the block. Raises LoaderError where another process does not let go."""
    fd = _acquire(path, time.monotonic() + patience, patience)
    try:
        yield
    finally:
        os.close(fd)


def is_held(path: str = LOCK) -> bool:
    """Whether a load is under way, as far as this process may know."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def forget(path: str) -> None:
    """Remove the lock's file, and its folder if nothing else is there; to be called while held.

    Whoever waits for the lock sees that the file is gone, and takes a new one.
    """
    os.unlink(path)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:  # somebody else's files beside it
        return


def _acquire(path: str, deadline: float, patience: float) -> int:
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(fd, path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = _holder(fd)
                os.close(fd)
                raise LoaderError(
                    f"{holder} has held {path} for {patience:.0f} s: wait until that load has "
                    "ended, or end it, and try again"
                ) from None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: str) -> int:
    while True:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the folder was removed meanwhile
            continue


def _is_at(fd: int, path: str) -> bool:
    """Whether the lock is still the one that others find."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _holder(fd: int) -> str:
    """Return who holds the lock, from what it has written: `process 12 (btfleet load)`."""
    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    try:
        with open(f"/proc/{int(pid)}/cmdline", encoding="utf-8", errors="replace") as stream:
            words = stream.read().replace("\0", " ").split()
    except (OSError, ValueError):
        return "another process"
    return f"process {pid} ({' '.join(words)[:100]})"
