# SPDX-License-Identifier: GPL-3.0-or-later
"""The calling end: opens many flows at once, without a thread or process for each."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from . import netns, sockets
from .errors import NatError
from .flow import Side
from .wanted import Made, Wanted, is_stream

AGAIN = 1.0  # seconds after which an unanswered packet is sent again
PATIENCE = 60.0
IN_FLIGHT = 256


@dataclass
class Pending:
    """A flow that is not answered yet."""

    wanted: Wanted
    own: socket.socket
    since: float
    sent: float


class Dialer:
    """Flows on their way, and those that were answered, with their sockets."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.epoll = select.epoll()
        self.pending: dict[int, Pending] = {}

    def start(self, wanted: Wanted) -> None:
        """Call; the answer comes out of `poll`."""
        group = wanted.group
        own = sockets.make(wanted.caller.netns, group.family, group.protocol)
        raw = sockets.is_raw(group.protocol)
        try:
            own.bind((wanted.source, 0 if raw else wanted.port))
            number = own.connect_ex((wanted.target, 0 if raw else group.kind.port))
        except OSError as error:
            raise NatError(f"{describe(wanted)}: {error.strerror}") from error
        if number not in (0, 115):  # EINPROGRESS
            raise NatError(f"{describe(wanted)}: {os.strerror(number)}")
        now = time.monotonic()
        pending = Pending(wanted, own, now, now)
        if not is_stream(group.protocol):
            self._send(pending, now)
        self.pending[own.fileno()] = pending
        self.epoll.register(own, select.EPOLLIN)

    def poll(self, timeout: float) -> list[tuple[Made, socket.socket]]:
        """The flows answered meanwhile."""
        done = []
        for descriptor, _events in self.epoll.poll(min(timeout, AGAIN)):
            pending = self.pending.get(descriptor)
            if pending is None:
                continue
            made = self._read(pending)
            if made is not None:
                del self.pending[descriptor]
                self.epoll.unregister(descriptor)
                done.append((made, pending.own))
        self._remind()
        return done

    def _read(self, pending: Pending) -> Made | None:
        wanted = pending.wanted
        _kind, family, protocol = wanted.group
        is_repeated = pending.sent > pending.since
        while True:
            try:
                packet = pending.own.recv(2048)
            except BlockingIOError:
                return None
            except OSError as error:
                if is_stream(protocol):
                    raise NatError(f"{describe(wanted)}: {error.strerror}") from error
                continue  # an ICMP error; the packet is sent again
            packet = sockets.payload(packet, family, protocol)
            if not packet and is_stream(protocol):
                raise NatError(f"{describe(wanted)}: closed by the other end")
            if protocol.startswith("icmp"):
                if sockets.is_echo_reply(packet, protocol, wanted.port):
                    return Made(wanted, None, is_repeated)
                continue
            return Made(wanted, parse_answer(packet), is_repeated)

    def _remind(self) -> None:
        now = time.monotonic()
        for pending in self.pending.values():
            if now - pending.since > PATIENCE:
                raise NatError(f"{describe(pending.wanted)}: no answer in {PATIENCE:.0f} s")
            if now - pending.sent > AGAIN and not is_stream(pending.wanted.group.protocol):
                self._send(pending, now)

    def _send(self, pending: Pending, now: float) -> None:
        protocol = pending.wanted.group.protocol
        if protocol.startswith("icmp"):
            packet = sockets.echo_request(protocol, pending.wanted.port)
        else:
            packet = sockets.framed(b"hello", protocol)
        pending.sent = now
        try:
            pending.own.send(packet)
        except OSError as error:
            # Refused or full: sent again later, and given up in the end.
            if not isinstance(error, (ConnectionError, BlockingIOError)):
                raise NatError(f"{describe(pending.wanted)}: {error.strerror}") from error


def dial(all_wanted: Iterable[Wanted]) -> Iterator[tuple[Made, socket.socket]]:
    """Call them all; every one is answered or an error is raised."""
    dialer = Dialer()
    waiting = iter(all_wanted)
    more = True
    while more or dialer.pending:
        while more and len(dialer.pending) < IN_FLIGHT:
            wanted = next(waiting, None)
            if wanted is None:
                more = False
                break
            dialer.start(wanted)
        yield from dialer.poll(AGAIN)
    netns.enter(netns.ROOT)


def parse_answer(packet: bytes) -> Side:
    """What the answering end says: its own address and port, then the caller's."""
    try:
        local, local_port, peer, peer_port = packet.decode().split()
        return Side(local, peer, (int(local_port), int(peer_port)))
    except ValueError as error:
        raise NatError(f"an answer that is not ours: {packet[:80]!r}") from error


def describe(wanted: Wanted) -> str:
    """The flow, for an error."""
    where = wanted.caller.netns or "the root namespace"
    return f"{wanted.group.label} from {wanted.source} port {wanted.port} in {where}"
