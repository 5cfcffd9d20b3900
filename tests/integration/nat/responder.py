# SPDX-License-Identifier: GPL-3.0-or-later
"""The answering end: tells every caller which addresses and ports it was seen with."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterable
from typing import NamedTuple

from . import background, netns, sockets
from .wanted import Group, is_stream

NAME = "responder"
BACKLOG = 4096


class Place(NamedTuple):
    """Where to listen."""

    netns: str
    family: str
    protocol: str
    address: str
    port: int


def places(groups: Iterable[Group]) -> list[Place]:
    """Every place that the groups call; the kernel itself answers ICMP."""
    found = {}
    for kind, family, protocol in groups:
        if protocol.startswith("icmp"):
            continue
        port = 0 if sockets.is_raw(protocol) else kind.listener_port
        for caller in kind.callers:
            name = kind.listener_netns(caller)
            found[Place(name, family, protocol, kind.listener(family), port)] = True
    return list(found)


def start(groups: Iterable[Group]) -> None:
    """Answer in the background."""
    wanted = places(groups)
    background.start(NAME, lambda ready: _serve(wanted, ready))


def describe(local: tuple[str, int], peer: tuple[str, int]) -> bytes:
    """The answer: both ends, as the answering one sees them."""
    return f"{local[0]} {local[1]} {peer[0]} {peer[1]}\n".encode()


class Server:
    """All the sockets of the answering end, in one process."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.epoll = select.epoll()
        self.listening: dict[int, tuple[socket.socket, Place]] = {}
        self.connected: dict[int, socket.socket] = {}

    def listen(self, place: Place) -> None:
        """Open one place."""
        own = sockets.make(place.netns, place.family, place.protocol)
        own.bind((place.address, place.port))
        if is_stream(place.protocol):
            own.listen(BACKLOG)
        self.listening[own.fileno()] = (own, place)
        self.epoll.register(own, select.EPOLLIN)

    def serve(self) -> None:
        """Answer for ever."""
        while True:
            for descriptor, _events in self.epoll.poll():
                if descriptor in self.connected:
                    self._close(descriptor)
                elif descriptor in self.listening:
                    own, place = self.listening[descriptor]
                    while (self._accept if is_stream(place.protocol) else self._answer)(own, place):
                        pass

    def _accept(self, own: socket.socket, _place: Place) -> bool:
        try:
            connection, peer = own.accept()
        except BlockingIOError:
            return False
        except OSError:
            return True  # reset before it was accepted
        try:
            connection.send(describe(connection.getsockname()[:2], peer[:2]))
        except OSError:
            connection.close()
            return True
        connection.setblocking(False)
        self.connected[connection.fileno()] = connection
        self.epoll.register(connection, select.EPOLLIN | select.EPOLLRDHUP)
        return True

    def _answer(self, own: socket.socket, place: Place) -> bool:
        try:
            _data, peer = own.recvfrom(2048)
            port = 0 if sockets.is_raw(place.protocol) else peer[1]
            text = describe((place.address, place.port), (peer[0], port))
            own.sendto(sockets.framed(text, place.protocol), peer)
        except BlockingIOError:
            return False
        except OSError:
            return True  # an error of an earlier answer
        return True

    def _close(self, descriptor: int) -> None:
        """The caller has closed: it sends nothing else."""
        connection = self.connected.pop(descriptor)
        self.epoll.unregister(connection)
        connection.close()


def _serve(wanted: list[Place], ready: background.Ready) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sockets.allow_many()
    server = Server()
    for place in wanted:
        server.listen(place)
    netns.enter(netns.ROOT)
    ready()
    server.serve()
