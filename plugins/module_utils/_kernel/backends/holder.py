# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that holds links which the kernel cannot pin (kprobes before 5.15).

A loader hands its links over as a set with a token, which is also in the record, and says which
token to keep once the record is pinned. Until then the holder keeps both sets: a loader that is
killed leaves the former one in force, and the next load says again what to keep. Another holder can
take everything over, so there is no moment without links while one makes room for the other.

One request a connection (SOCK_SEQPACKET, root alone may connect): a JSON object {do, token,
names}, with descriptors beside it; the answer is one, too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Mapping

from ..errors import LoaderError
from . import daemon
from .held_links import NOT_HELD, SOCKET, ask, receive, send
from .keeper_unit import UNIT

# A holder that was never given anything ends by itself
_IDLE_SECONDS = 600


# --- the holder's own side ------------------------------------------------------------------------


class Holder:
    """Holds sets of links and answers on its socket until it has none left."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._sets: dict[str, dict[str, int]] = {}
        self._ended = threading.Event()
        self._socket = self._listen()

    def _listen(self) -> socket.socket:
        """In place of a former holder's socket, in one step."""
        os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
        draft = f"{self._path}.{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            before = os.umask(0o077)
            try:
                sock.bind(draft)
            finally:
                os.umask(before)
            sock.listen(16)
            self._inode = os.stat(draft).st_ino
            os.rename(draft, self._path)
        except BaseException:
            sock.close()
            raise
        return sock

    def adopt(self, sets: Mapping[str, Mapping[str, int]]) -> None:
        """Holds these, too."""
        self._sets.update({token: dict(links) for token, links in sets.items()})

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing."""
        return not self._sets

    def start(self) -> None:
        """Serves beside the calling thread."""
        threading.Thread(target=self.serve, daemon=True).start()

    def wait(self) -> None:
        """Waits until it holds nothing any more."""
        self._ended.wait()

    def serve(self) -> None:
        """Answers until the last set is dropped, or taken over."""
        self._socket.settimeout(_IDLE_SECONDS)
        try:
            while self._serve_one():
                pass
        finally:
            self.close()

    def _serve_one(self) -> bool:
        try:
            connection, _address = self._socket.accept()
        except socket.timeout:
            return not self.is_empty
        with connection:
            connection.settimeout(10)
            try:
                message, descriptors = receive(connection)
                goes_on, answer, given = self._answer(message, descriptors)
                send(connection, answer, given)
            except (OSError, ValueError):
                # Whoever asked is gone, or made no sense; what is held stays held
                return True
        return goes_on

    def _answer(
        self, message: dict[str, object], descriptors: list[int]
    ) -> tuple[bool, dict[str, object], list[int]]:
        """Whether to go on, the answer, and descriptors that go with it."""
        do, token = message.get("do"), message.get("token")
        names = message.get("names")
        if do == "hold" and isinstance(names, list) and len(names) == len(descriptors):
            self._sets[str(token)] = {str(name): fd for name, fd in zip(names, descriptors)}
            return True, {"ok": True}, []
        for fd in descriptors:
            os.close(fd)
        if do == "keep":
            for other in [one for one in self._sets if one != token]:
                self._drop(other)
            return not self.is_empty, {"ok": True}, []
        if do == "list":
            return True, {"ok": True, "sets": self._sets}, []
        if do == "give":
            given = [fd for links in self._sets.values() for fd in links.values()]
            return True, {"ok": True, "sets": self._sets}, given
        if do == "leave":
            return False, {"ok": True}, []
        return True, {"ok": False, "error": f"unknown request {do!r}"}, []

    def _drop(self, token: str) -> None:
        for fd in self._sets.pop(token).values():
            os.close(fd)

    def close(self) -> None:
        """Lets everything go. The socket's file stays if it is a successor's by now."""
        for token in list(self._sets):
            self._drop(token)
        self._socket.close()
        try:
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass
        self._ended.set()


# --- what others ask it ---------------------------------------------------------------------------


def hold(token: str, links: Mapping[str, int], path: str = SOCKET) -> None:
    """Hands links over; raises LoaderError if nobody takes them."""
    message: dict[str, object] = {"do": "hold", "token": token, "names": list(links)}
    if ask(path, message, list(links.values())) is None:
        raise LoaderError(f"{NOT_HELD}: none answers at {path}, run `systemctl restart {UNIT}`")


def keep(token: str | None, path: str = SOCKET) -> None:
    """Has all sets dropped but that one. A holder that is left with nothing ends."""
    ask(path, {"do": "keep", "token": token})


def take_over(path: str = SOCKET) -> Holder:
    """A holder in this process in place of the one so far, with all that it had."""
    found = ask(path, {"do": "give"})
    # Connects to the former one by a path that is about to be ours
    with _parting(path) as former:
        successor = Holder(path)
        if found is not None:
            successor.adopt(_sets_of(found[0].get("sets"), found[1]))
            former.leave()
    return successor


def _sets_of(sets: object, descriptors: list[int]) -> dict[str, dict[str, int]]:
    """The sets with this process's descriptors, which came in their order."""
    if not isinstance(sets, dict):
        return {}
    rest = iter(descriptors)
    return {token: {name: next(rest) for name in links} for token, links in sets.items()}


class _parting:  # noqa: N801  (used as a function)
    """A connection to a holder, made while its socket is still to be found."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(10)
        with contextlib.suppress(OSError):
            self._sock.connect(path)

    def leave(self) -> None:
        """Sends it home."""
        try:
            send(self._sock, {"do": "leave"}, [])
            receive(self._sock)
        except OSError:
            pass

    def __enter__(self) -> _parting:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._sock.close()


def start(path: str = SOCKET) -> None:
    """Leave a process behind that holds. Raises LoaderError."""
    reader, writer = os.pipe()
    try:
        daemon.start(lambda: _become_holder(path, writer), keep=[writer])
    finally:
        os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        if stream.read() != b"ready":
            raise LoaderError(f"{NOT_HELD}: none could be started at {path}")


def _become_holder(path: str, ready: int) -> None:
    holder = Holder(path)
    os.write(ready, b"ready")
    os.close(ready)
    holder.serve()


def forget(path: str = SOCKET) -> None:
    """Removes the socket that a killed holder left."""
    try:
        os.unlink(path)
    except OSError:
        return
