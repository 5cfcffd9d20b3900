# SPDX-License-Identifier: GPL-3.0-or-later
"""Open flows of every kind and keep them open in the background."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from . import background, records, sockets, state, topology, wanted
from .dialer import dial
from .errors import NatError
from .responder import NAME as RESPONDER


def usable_groups() -> list[wanted.Group]:
    """The groups of flows that this host can make."""
    kinds, skipped = topology.usable()
    return wanted.groups(kinds, skipped)


def start(flows: int) -> dict[str, object]:
    """Make the flows; returns when every one was answered."""
    groups = [group for group in usable_groups() if not group.kind.deleted]
    check_responder()
    plan = wanted.plan(groups, flows)
    check_room(len(plan))
    name = f"flows-{state.load('traffic-runs')}"
    background.start(name, lambda ready: _hold(name, plan, ready))
    made = records.read(name)
    untranslated = sum(kind == "plain" for kind, *_rest in made)
    protocols = Counter(one.group.protocol for one in plan)
    return {
        "translated": len(made) - untranslated,
        "untranslated": untranslated,
        "protocols": dict(sorted(protocols.items())),
    }


def check_responder() -> None:
    """The answering end has to be there."""
    if RESPONDER not in background.running():
        raise NatError("the answering end is not running: run 'up' first")


def check_room(flows: int) -> None:
    """A full table would drop flows, which is not what is tested."""
    try:
        most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    except OSError:
        return
    if flows * 2 > most:
        raise NatError(f"{flows} flows need nf_conntrack_max of {flows * 2}, it is {most}")


def _hold(name: str, plan: list[wanted.Wanted], ready: background.Ready) -> None:
    background.block_term()
    sockets.allow_many()
    answered = list(dial(plan))
    records.write(name, (made for made, _answer in answered))
    ready()
    background.until_told()
