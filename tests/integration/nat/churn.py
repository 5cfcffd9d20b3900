# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections opened and closed all the time, with a log of every tuple."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from itertools import cycle
from types import FrameType
from typing import Any

from . import background, netns, records, sockets, state, traffic, wanted
from .commands import run
from .dialer import IN_FLIGHT, Dialer
from .errors import NatError
from .wanted import Group, Made, Wanted

NAME = "churn"
PORTS_A_SECOND = 5  # more than any churn takes
FORGET_EVERY = 3  # of the flows that may be deleted


def start(
    rate: float, seconds: float, leave_out: str | None = None, forget: bool = False
) -> dict[str, object]:
    """Begin; returns when the first flow was answered.

    `leave_out` is a family and a protocol, as ipv6/udp. `forget` deletes some of the closed flows
    from the kernel's table at once, as if they had expired.
    """
    traffic.check_responder()
    groups = [
        group
        for group in traffic.usable_groups()
        if group.kind.translated and not group.kind.deleted and group.protocol in ("tcp", "udp")
        if f"{group.family}/{group.protocol}" != leave_out
    ]
    background.stop(NAME)
    state.save("churn-counts", None)
    background.start(NAME, lambda ready: _run(_endless(groups), rate, seconds, forget, ready))
    return {"rate": rate, "seconds": seconds}


def stop() -> dict[str, int]:
    """End it now if it has not ended; how many flows it made."""
    background.stop(NAME)
    return counts()


def finish(seconds: float) -> dict[str, int]:
    """Wait until it ends by itself."""
    if not background.await_end(NAME, seconds):
        raise NatError(f"churn has not ended in {seconds:.0f} s")
    return stop()


def counts() -> dict[str, int]:
    """What the last churn made."""
    found: dict[str, int] | None = state.load("churn-counts")
    if found is None:
        log = state.FOLDER / "churn.log"
        last = log.read_text().splitlines()[-1:] if log.exists() else []
        raise NatError(f"churn has not ended well: {last[0] if last else 'no flow was made'}")
    return found


def _endless(groups: list[Group]) -> Iterator[Wanted]:
    """The groups take turns."""
    # Not where an earlier churn began: namespaces get the inode numbers of those that are gone,
    # whose closed flows would stand for flows that are missed now
    begin = int(time.time() * PORTS_A_SECOND) % len(wanted.CHURN)
    ports = [*wanted.CHURN[begin:], *wanted.CHURN[:begin]]
    each = [wanted.flows(group, cycle(ports)) for group in groups]
    for turn in zip(*each):
        yield from turn


def _may_be_forgotten(made: Made) -> bool:
    """Not if a packet may be on its way, to be another flow; not where two flows look the same."""
    one = made.wanted
    return one.group.protocol == "udp" and not made.is_repeated and not one.caller.zone


def _forget(one: Wanted) -> None:
    kind, family, protocol = one.group
    with netns.inside(kind.site.router):
        ends = ["-s", one.source, "-d", one.target, "--sport", str(one.port)]
        run(["conntrack", "-D", "-f", family, "-p", protocol, *ends], ok=(0, 1))


def _run(
    plan: Iterator[Wanted], rate: float, seconds: float, forget: bool, ready: background.Ready
) -> None:
    stopped, forgettable = False, 0

    def on_term(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, on_term)
    sockets.allow_many()
    dialer, started, made_flows = Dialer(), 0, 0
    tuples = set()
    begin = time.monotonic()
    with (state.FOLDER / f"{NAME}.jsonl").open("w", buffering=1) as log:
        while True:
            age = time.monotonic() - begin
            over = stopped or age >= seconds
            if over and not dialer.pending:
                break
            while not over and started < age * rate and len(dialer.pending) < IN_FLIGHT:
                dialer.start(next(plan))
                started += 1
            due = max(started / rate - age, 0.0)
            for made, own in dialer.poll(1.0 if over else due):
                log.write(json.dumps([*made.record(), time.time()]) + "\n")
                own.close()
                if forget and _may_be_forgotten(made):
                    forgettable += 1
                    if forgettable % FORGET_EVERY == 0:
                        _forget(made.wanted)
                tuples.add(made.wanted.key)
                made_flows += 1
                if made_flows == 1:
                    ready()
    netns.enter(netns.ROOT)
    took = int(time.monotonic() - begin)
    deleted = forgettable // FORGET_EVERY
    made_all = {"flows": made_flows, "tuples": len(tuples), "deleted": deleted, "seconds": took}
    state.save("churn-counts", made_all)


def log(since: float = 0.0, until: float = math.inf) -> list[list[Any]]:
    """What it made in that time (Unix seconds): kind, tuple and what the other end saw."""
    return [line[:3] for line in records.read(NAME) if since <= line[3] <= until]
