# SPDX-License-Identifier: GPL-3.0-or-later
"""Port reuse: the same tuple again and again, each time perhaps translated otherwise.

Two ways to a successor: the kernel itself replaces the entry when a closed connection's
tuple is opened again (TCP), or the entry is deleted by hand in between (TCP and UDP).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice

from . import background, netns, records, sockets, state, traffic, wanted
from .commands import run
from .dialer import AGAIN, Dialer, dial
from .errors import NatError
from .flow import Key
from .kinds import DELETED
from .wanted import Group, Made, Wanted

WORKERS = 2
BY_KERNEL, BY_HAND = 4, 10  # flows a group
PORTS = 1200  # at the most, for one run


class Held:
    """The last use of every tuple, and how often its translation changed."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.last: dict[Key, tuple[Made, socket.socket]] = {}
        self.reopened = 0
        self.changed = 0

    def add(self, made: Made, own: socket.socket) -> None:
        """Keep a flow open."""
        key = made.wanted.key
        before = self.last.get(key)
        if before is not None:
            self.reopened += 1
            self.changed += before[0].reply != made.reply
        self.last[key] = (made, own)

    def close(self, made: Made) -> None:
        """End the flow; what it was stays known."""
        self.last[made.wanted.key][1].close()


def start(rounds: int) -> dict[str, object]:
    """Reuse many tuples at the same time; the last use of each stays open."""
    traffic.check_responder()
    groups = traffic.usable_groups()
    ports = wanted.take_ports("reuse", wanted.REUSE, PORTS)
    number = state.load("reuse-runs", 0) + 1
    state.save("reuse-runs", number)
    workers = []
    for worker in range(WORKERS):
        name = f"flows-reuse-{number}-{worker}"
        plan = list(_plan(groups, worker, ports))
        reader = background.launch(
            name,
            lambda ready, name=name, plan=plan: _hold(name, plan, rounds, ready),  # type: ignore[misc]
        )
        workers.append((reader, name))
    for reader, name in workers:
        background.wait(reader, name)
    parts: list[dict[str, int]] = [state.load(f"{name}-counts") for _worker, name in workers]
    counts = {field: sum(part[field] for part in parts) for field in parts[0]}
    if rounds > 1 and not counts["changed"]:
        raise NatError(f"{counts['reopened']} tuples were reused, all with the same translation")
    return dict(counts)


def _plan(groups: list[Group], worker: int, ports: Iterator[int]) -> Iterator[Wanted]:
    """The workers share the work: one deletes by hand, for both reuse by the kernel's way."""
    for group in groups:
        if group.kind.deleted:
            if worker == 0:
                yield from islice(wanted.flows(group, ports), BY_HAND)
        elif group.protocol == "tcp":
            yield from islice(wanted.flows(group, ports), BY_KERNEL // WORKERS)


def _hold(name: str, plan: list[Wanted], rounds: int, ready: background.Ready) -> None:
    background.block_term()
    sockets.allow_many()
    held = Held()
    _by_kernel([one for one in plan if not one.group.kind.deleted], rounds, held)
    _by_hand([one for one in plan if one.group.kind.deleted], rounds, held)
    records.write(name, (made for made, _answer in held.last.values()))
    counts = {"tuples": len(held.last), "reopened": held.reopened, "changed": held.changed}
    state.save(f"{name}-counts", counts)
    ready()
    background.until_told()


def _by_kernel(plan: list[Wanted], rounds: int, held: Held) -> None:
    """Each flow for itself: closed with a reset and opened again at once."""
    dialer = Dialer()
    left = {one.key: rounds for one in plan}
    for one in plan:
        dialer.start(one)
    while dialer.pending:
        for made, own in dialer.poll(AGAIN):
            held.add(made, own)
            key = made.wanted.key
            left[key] -= 1
            if left[key] > 0:
                held.close(made)
                dialer.start(made.wanted)
    netns.enter(netns.ROOT)


def _by_hand(plan: list[Wanted], rounds: int, held: Held) -> None:
    """All together: closed, deleted from the table, opened again."""
    routers = sorted({one.group.kind.site.router for one in plan})
    for number in range(rounds if plan else 0):
        for made, own in dial(plan):
            held.add(made, own)
        if number == rounds - 1:
            return
        for one in plan:
            held.last[one.key][1].close()
        for router in routers:
            with netns.inside(router):
                for family in ("ipv4", "ipv6"):
                    for protocol in ("tcp", "udp"):
                        words = ["-D", "-f", family, "-p", protocol, "--dport", str(DELETED)]
                        run(["conntrack", *words], ok=(0, 1))
