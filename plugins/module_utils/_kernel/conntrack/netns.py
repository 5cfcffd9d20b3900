# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces: finding them, and doing something inside each."""

from __future__ import annotations

import os
import re
from typing import Callable, Iterator, TypeVar

from ..bpf.libc import CLONE_NEWNET, setns

Result = TypeVar("Result")

_NSFS_ROOT = re.compile(r" net:\[(\d+)\] (\S+) .* - nsfs ")


def own() -> int:
    """The inode number of the caller's namespace."""
    return os.stat("/proc/self/ns/net").st_ino


def find() -> dict[int, str]:
    """Every namespace that a process lives in or a mount holds: inode number to a path of it."""
    found: dict[int, str] = {}
    for inode, path in [*_of_mounts(), *_of_processes()]:
        found.setdefault(inode, path)
    return found


def names() -> dict[int, str]:
    """The names that `ip netns` knows, by inode number."""
    result = {}
    try:
        with os.scandir("/run/netns") as entries:
            for entry in entries:
                result[os.stat(entry.path).st_ino] = entry.name
    except OSError:
        pass
    return result


def _of_processes() -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            path = f"/proc/{entry}/ns/net"
            try:
                yield os.stat(path).st_ino, path
            except OSError:  # it has ended meanwhile
                continue


def _of_mounts() -> Iterator[tuple[int, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            match = _NSFS_ROOT.search(line)
            if match:
                yield int(match.group(1)), match.group(2).replace("\\040", " ")


def run_inside(path: str, function: Callable[[], Result]) -> Result:
    """Runs `function` in the namespace at `path`, in a thread: the caller's own stays.

    Raises what `function` raises, and OSError if the namespace cannot be entered.
    """
    # Only a load comes here, and a look-up has no time for this import
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    def body() -> Result:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
        return function()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as executor:
        return executor.submit(body).result()
