# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All network namespaces of the host: finding them, and doing something inside each.

A namespace is what was opened. A path says little: a later mount hides the file of a namespace or
puts another one in its place, and a process ends. So each path that may lead to a namespace is
tried, and the inode number of what was opened says whether it is the one that was meant.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from typing import Callable, Iterator, List, NamedTuple, TypeVar

from ..bpf.libc import CLONE_NEWNET, setns
from . import netns

Result = TypeVar("Result")

_NSFS_MOUNT = re.compile(r" net:\[(\d+)\] (\S+) .* - nsfs ")
_OPEN_NAMESPACE = re.compile(r"net:\[(\d+)\]")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Gone(OSError):
    """The namespace is there no more."""


class CannotEnter(OSError):
    """The namespace is there, and no path leads into it; `strerror` has the reason for each."""


class Namespace(NamedTuple):
    """A network namespace: its inode number, and the paths that led to it when it was found."""

    inode: int
    paths: List[str]  # noqa: UP006 Python 3.8 evaluates it

    def open(self) -> int:
        """Return a descriptor of the namespace; raises Gone or CannotEnter."""
        why: dict[str, str] = {}
        paths = self.paths
        # What it was found by may have ended: looked for once more, by open descriptors as well
        for _attempt in range(2):
            for path in paths:
                try:
                    return _open(path, self.inode)
                except OSError as exc:
                    if exc.errno in (errno.EMFILE, errno.ENFILE):
                        raise
                    why[path] = str(exc.strerror)
            again = find().get(self.inode)
            if again is None:
                raise Gone(errno.ENOENT, f"network namespace {self.inode} is gone")
            paths = again.paths
        reasons = ", ".join(f"{path}: {why[path]}" for path in paths)
        raise CannotEnter(errno.ENXIO, reasons)

    def run(self, function: Callable[[], Result]) -> Result:
        """Call `function` in the namespace, in a thread: the caller's own namespace stays.

        Raises Gone, CannotEnter, and what `function` raises.
        """
        if self.inode == netns.own():
            return function()
        results: list[Result] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                self._enter()
                results.append(function())
            except BaseException as exc:  # noqa: BLE001 raised in the caller's thread
                errors.append(exc)

        thread = threading.Thread(target=body, name="netns")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def _enter(self) -> None:
        fd = self.open()
        try:
            setns(fd, CLONE_NEWNET)
        except OSError as exc:
            raise CannotEnter(exc.errno, exc.strerror) from None
        finally:
            os.close(fd)


def _open(path: str, inode: int) -> int:
    # A path that leads elsewhere by now may lead to anything: a pipe would block
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if netns.is_number_of(os.fstat(fd), inode):
        return fd
    os.close(fd)
    raise OSError(errno.ESTALE, "leads elsewhere (a later mount hides it)")


# What is listed may have ended meanwhile, or be another user's
_NOT_SEEN = (FileNotFoundError, ProcessLookupError, PermissionError)


# --- finding them -------------------------------------------------------------------------------


def find(descriptors: bool = True) -> dict[int, Namespace]:
    """Every namespace that a thread lives in, or a mount or an open descriptor holds.

    By inode number. Without `descriptors`, which takes a look at each open file of the host, those
    that nothing else holds are not found. A namespace that sockets alone keep alive never is.
    """
    own = netns.own()
    found = {own: Namespace(own, ["/proc/self/ns/net"])}
    for inode, path in _candidates(descriptors):
        if inode != own:  # which is never entered: most threads of the host live there
            found.setdefault(inode, Namespace(inode, [])).paths.append(path)
    return found


def _candidates(descriptors: bool) -> Iterator[tuple[int, str]]:
    """Inode numbers, each with a path that leads there."""
    yield from _of_mounts("/proc/self", "")
    seen = {_mount_namespace("/proc/self"), None}
    for process in _numbered("/proc"):
        for thread in _numbered(f"{process}/task"):
            path = f"{thread}/ns/net"
            try:
                yield os.stat(path).st_ino, path
            except _NOT_SEEN:
                continue
            mounts = _mount_namespace(thread)
            if mounts not in seen:
                seen.add(mounts)
                yield from _of_mounts(thread, f"{thread}/root")
        if descriptors:
            yield from _of_descriptors(process)


def _numbered(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except _NOT_SEEN:
        return
    yield from (f"{folder}/{name}" for name in names if name.isdigit())


def _mount_namespace(thread: str) -> int | None:
    try:
        return os.stat(f"{thread}/ns/mnt").st_ino
    except _NOT_SEEN:
        return None


def _of_mounts(thread: str, root: str) -> Iterator[tuple[int, str]]:
    try:
        with open(f"{thread}/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()
    except _NOT_SEEN:
        return
    for line in lines:
        match = _NSFS_MOUNT.search(line)
        if match:
            path = _ESCAPED.sub(lambda code: chr(int(code.group(1), 8)), match.group(2))
            yield int(match.group(1)), root + path


def _of_descriptors(process: str) -> Iterator[tuple[int, str]]:
    # Threads share their descriptors, and a leader that has ended shows none
    for thread in (process, *_numbered(f"{process}/task")):
        fds = list(_numbered(f"{thread}/fd"))
        for fd in fds:
            try:
                match = _OPEN_NAMESPACE.fullmatch(os.readlink(fd))
            except _NOT_SEEN:
                continue
            if match:
                yield int(match.group(1)), fd
        if fds:
            return
