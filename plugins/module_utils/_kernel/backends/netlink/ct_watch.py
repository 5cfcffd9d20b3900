# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace whose conntrack events are listened to, and whose table can be asked for.

One descriptor per namespace stays open, the socket that events come to: it leads back into its
namespace (SIOCGSKNS), so a socket to ask with is opened when there is something to ask.
"""

from __future__ import annotations

import errno
import fcntl
import socket
from typing import Callable, Iterator, TypeVar

from ...bpf import bpf
from ...conntrack import ctnetlink
from ...conntrack.ctnetlink import GROUP_DESTROY, GROUP_NEW, Message
from ...conntrack.namespaces import Namespace
from ...conntrack.query import Query, open_socket
from .balance import Balance

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 1, 2
_SO_RCVBUFFORCE = 33
# linux/sockios.h, 4.10
_SIOCGSKNS = 0x894C
# Taken only while events wait: some ten seconds of a thousand flows a second
_BUFFER = 32 << 20
_DATAGRAM = 1 << 16

_FILES = "/proc/sys/net/netfilter/nf_conntrack_"


_Result = TypeVar("_Result")


class Overrun(Exception):
    """Events came faster than they were read, and some are lost."""


class Watch:
    """A socket in one namespace. It keeps that alive, so it has to be closed once the namespace is
    not found any more. Raises OSError if the namespace cannot be entered (`namespaces` has the
    kinds) or listened to.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.inode = namespace.inode
        # Flows that the last dump found and no event had announced: their end may go unannounced
        self.unannounced = 0
        # When it is to be compared with the kernel's table next (monotonic seconds; 0: at once)
        self.due = 0.0
        self.balance = Balance()
        self.is_silent = False
        self._events = namespace.run(self._begin)

    def _begin(self) -> socket.socket:
        self.is_silent = _read("events") == 0
        return _listen()

    def _inside(self, function: Callable[[], _Result]) -> _Result:
        """Run it in the namespace of the socket, whatever has become of its path."""
        opened = fcntl.ioctl(self._events.fileno(), _SIOCGSKNS)
        with bpf.closing(opened):
            return Namespace(self.inode, [f"/proc/self/fd/{opened}"]).run(function)

    def fileno(self) -> int:
        """Of the socket that events come to."""
        return self._events.fileno()

    def events(self, most: int) -> Iterator[Message]:
        """Events that have come, of up to `most` datagrams; raises Overrun where some are lost."""
        return _messages(self._events, most)

    def ask_count(self) -> None:
        """Ask for the number of flows: the answer stands among the events, where it belongs."""
        try:
            self._events.sendto(ctnetlink.count_request(), (0, 0))
        except OSError:  # no room for the answer: the next one will tell
            return

    def renew(self) -> Iterator[Message]:
        """After an overrun: listens anew, then gives what the former socket still has.

        What came to the new socket meanwhile waits there. So a dump that is made after this is
        younger than every event that was given, and older than none that is lost.
        """
        former, self._events = self._events, self._inside(_listen)
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

    def query(self) -> Query:
        """A way to ask for flows, to be closed. Raises OSError."""

        def begin() -> Query:
            self.is_silent = _read("events") == 0
            return Query(open_socket(), _read("count"))

        return self._inside(begin)

    def close(self) -> None:
        """Lets the namespace go."""
        self._events.close()


class Queries:
    """Queries of many namespaces, each opened once, and few open at a time."""

    _MOST = 32

    def __init__(self) -> None:
        self._open: dict[int, Query] = {}

    def of(self, watch: Watch) -> Query:
        """One for this namespace. Raises OSError."""
        found = self._open.get(watch.inode)
        if found is None:
            if len(self._open) >= self._MOST:
                self.close()
            found = self._open[watch.inode] = watch.query()
        return found

    def close(self) -> None:
        """Close all of them."""
        for query in self._open.values():
            query.close()
        self._open = {}


def _listen() -> socket.socket:
    sock = open_socket()
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


def _read(name: str) -> int:
    """A number of the caller's namespace: `events` (0: it sends none), or `count` of flows."""
    with open(_FILES + name, encoding="ascii") as stream:
        return int(stream.read())


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
