# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace whose conntrack events are listened to, and whose table can be asked for."""

from __future__ import annotations

import errno
import os
import socket
from typing import Callable, Iterator, TypeVar

from ...conntrack import ctnetlink, netns
from ...conntrack.ctnetlink import GROUP_DESTROY, GROUP_NEW, NETLINK_NETFILTER, Flow, Message

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 1, 2
_SO_RCVBUFFORCE = 33
# Taken only while events wait: some ten seconds of a thousand flows a second
_BUFFER = 32 << 20
_DATAGRAM = 1 << 16
_ANSWER_SECONDS = 30

_EVENTS_FILE = "/proc/sys/net/netfilter/nf_conntrack_events"


_Result = TypeVar("_Result")


class Overrun(Exception):
    """Events came faster than they were read, and some are lost."""


class Watch:
    """Sockets in one namespace. They keep it alive, so it has to be closed once it is not found
    any more. Raises OSError if the namespace cannot be entered or listened to.
    """

    def __init__(self, inode: int, path: str) -> None:
        self.inode = inode
        # Flows that the last dump found and no event had announced: their end may go unannounced
        self.unannounced = 0
        # When it is to be compared with the kernel's table next (monotonic seconds)
        self.due = 0.0
        self._path = path
        self._query: socket.socket | None = None
        self.is_silent = False
        self._events = self._inside(self._listen)
        try:
            self._query = self._inside(_open)
            self._query.settimeout(_ANSWER_SECONDS)
            self.is_silent = self._inside(_is_silent)
        except BaseException:
            self.close()
            raise

    def _inside(self, function: Callable[[], _Result]) -> _Result:
        if netns.own() == self.inode:
            return function()
        return netns.run_inside(self._path, function)

    def _listen(self) -> socket.socket:
        sock = _open()
        try:
            sock.setblocking(False)
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            for group in (GROUP_NEW, GROUP_DESTROY):
                sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            sock.close()
            raise
        return sock

    def fileno(self) -> int:
        """Of the socket that events come to."""
        return self._events.fileno()

    def events(self, most: int) -> Iterator[Message]:
        """Events that have come, of up to `most` datagrams; raises Overrun where some are lost."""
        return _messages(self._events, most)

    def renew(self) -> Iterator[Message]:
        """After an overrun: listens anew, then gives what the former socket still has.

        What came to the new socket meanwhile waits there. So a dump that is made after this is
        younger than every event that was given, and older than none that is lost.
        """
        former, self._events = self._events, self._inside(self._listen)
        try:
            for group in (GROUP_NEW, GROUP_DESTROY):
                former.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)
            while True:
                try:
                    yield from _messages(former, None)
                    return
                except Overrun:
                    continue
        finally:
            former.close()

    def dump(self) -> Iterator[Flow | None]:
        """The namespace's table; None for a flow that could not be read. Raises OSError."""
        query = self._ask(ctnetlink.dump_request())
        while True:
            datagram = query.recv(_DATAGRAM)
            for message in ctnetlink.messages(datagram):
                yield message.flow
            code = ctnetlink.end_of_answer(datagram)
            if code is not None:
                if code:
                    raise OSError(code, os.strerror(code))
                return

    def find(self, key: bytes) -> Flow | None:
        """The flow that has this key now, None if there is none. Raises OSError."""
        datagram = self._ask(ctnetlink.get_request(key)).recv(_DATAGRAM)
        code = ctnetlink.end_of_answer(datagram)
        if code == errno.ENOENT:
            return None
        if code:
            raise OSError(code, os.strerror(code))
        return next((message.flow for message in ctnetlink.messages(datagram)), None)

    def _ask(self, request: bytes) -> socket.socket:
        if self._query is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._query.sendto(request, (0, 0))
        return self._query

    def close(self) -> None:
        """Lets the namespace go."""
        self._events.close()
        if self._query is not None:
            self._query.close()


def _open() -> socket.socket:
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    try:
        sock.bind((0, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _is_silent() -> bool:
    """Whether the namespace sends no events at all."""
    with open(_EVENTS_FILE, encoding="ascii") as stream:
        return stream.read().strip() == "0"


def _messages(sock: socket.socket, most: int | None) -> Iterator[Message]:
    while most is None or most > 0:
        try:
            datagram = sock.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                raise Overrun from None
            raise
        yield from ctnetlink.messages(datagram)
        most = None if most is None else most - 1
