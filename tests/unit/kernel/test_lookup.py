# SPDX-License-Identifier: GPL-3.0-or-later
"""The look-up: one rule for the command, the agent and whoever else asks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import netns
from btfleet._kernel.conntrack.flow import Flow
from btfleet._kernel.conntrack.layout import CLOSED, LIVE, NETNS_ENDED, NETNS_KEY, NETNS_VALUE
from btfleet._kernel.conntrack.lookup import Lookup, keys
from btfleet._kernel.errors import LoaderError, TrackerError

from tests.unit.kernel_access import MASQUERADED, Wanted, bpffs_at, hash_map, needs_bpf, tracker_map

pytestmark = needs_bpf

# No namespace that is there
ELSEWHERE = 17
SUCCESSOR = replace(MASQUERADED, reply=("192.0.2.1", 80, "203.0.113.1", 2048))


@dataclass
class Tracker:
    """The maps that are pinned."""

    pins: Pins
    live: int
    closed: int
    ended: int

    def find(
        self, flow: Wanted, namespace: int | None, reply: bool = False, **change: object
    ) -> Flow | None:
        given: dict[str, Any] = {"zone": 0, "protocol": "tcp", **change}
        wanted = keys(namespace, ends=flow.reply if reply else flow.orig, **given)
        with Lookup(self.pins) as maps:
            return maps.find(wanted)

    def end(self, number: int, when: int) -> None:
        bpf.map_update(self.ended, NETNS_KEY.pack(number), NETNS_VALUE.pack(when))


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    with ExitStack() as stack:
        mount = stack.enter_context(bpffs_at(tmp_path / "bpf"))
        pins = Pins(str(mount / "btfleet"))
        os.mkdir(pins.folder)
        live, closed = (stack.enter_context(tracker_map()) for _name in (LIVE, CLOSED))
        ended = stack.enter_context(hash_map(4, 8, 64, bpf.LRU_HASH))
        for name, fd in ((LIVE, live), (CLOSED, closed), (NETNS_ENDED, ended)):
            bpf.obj_pin(fd, pins.path(name))
        yield Tracker(pins, live, closed, ended)


def test_either_direction_is_found_and_live_before_closed(tracker: Tracker) -> None:
    number = MASQUERADED.netns
    assert tracker.find(MASQUERADED, number) is None
    replace(MASQUERADED, closed_ns=5).write(tracker.closed)
    for reply in (False, True):
        found = tracker.find(MASQUERADED, number, reply)
        assert found is not None
        assert (found.state, found.closed_ns, found.orig) == ("closed", 5, MASQUERADED.orig)
    SUCCESSOR.write(tracker.live)
    found = tracker.find(MASQUERADED, number)
    assert found is not None
    assert (found.state, found.reply) == ("live", SUCCESSOR.reply)
    assert tracker.find(MASQUERADED, number, zone=1) is None
    assert tracker.find(MASQUERADED, number, protocol="udp") is None


def test_what_is_not_in_its_own_namespace_is_looked_for_in_the_root_one(tracker: Tracker) -> None:
    replace(MASQUERADED, netns=netns.root()).write(tracker.live)
    for namespace in (ELSEWHERE, None, netns.root()):
        found = tracker.find(MASQUERADED, namespace)
        assert found is not None
        assert found.netns == netns.root()


def test_a_flow_that_lives_in_the_root_namespace_comes_before_one_that_ended_in_its_own(
    tracker: Tracker,
) -> None:
    replace(MASQUERADED, netns=ELSEWHERE, closed_ns=5).write(tracker.closed)
    replace(SUCCESSOR, netns=netns.root()).write(tracker.live)
    found = tracker.find(MASQUERADED, ELSEWHERE)
    assert found is not None
    assert (found.netns, found.state) == (netns.root(), "live")


def test_an_ipv4_address_in_ipv6_form_is_looked_up_as_what_it_is(tracker: Tracker) -> None:
    MASQUERADED.write(tracker.live)
    src, sport, dst, dport = MASQUERADED.orig
    mapped = replace(MASQUERADED, orig=(f"::ffff:{src}", sport, f"::ffff:{dst}", dport))
    found = tracker.find(mapped, MASQUERADED.netns)
    assert found is not None
    assert found.orig == MASQUERADED.orig


@pytest.mark.parametrize("state", ["live", "closed"])
def test_the_next_owner_of_a_number_inherits_nothing(tracker: Tracker, state: str) -> None:
    """The number is that of a namespace that is there."""
    flow = replace(MASQUERADED, netns=netns.own(), created_ns=5, closed_ns=6 * (state == "closed"))
    flow.write(tracker.live if state == "live" else tracker.closed)
    tracker.end(netns.own(), 7)
    assert tracker.find(MASQUERADED, None) is None
    tracker.end(netns.own(), 4)
    assert tracker.find(MASQUERADED, None) is not None


@pytest.mark.parametrize("state", ["live", "closed"])
def test_who_asks_late_hears_that_the_namespace_is_gone(tracker: Tracker, state: str) -> None:
    now = time.monotonic_ns()
    flow = replace(MASQUERADED, netns=ELSEWHERE, created_ns=5, closed_ns=now * (state == "closed"))
    flow.write(tracker.live if state == "live" else tracker.closed)
    tracker.end(ELSEWHERE, now)
    found = tracker.find(MASQUERADED, ELSEWHERE)
    assert found is not None
    assert (found.state, found.netns_gone, found.closed_ns) == ("closed", True, now)


def test_maps_of_a_release_that_did_not_note_ends_are_read(tracker: Tracker) -> None:
    os.unlink(tracker.pins.path(NETNS_ENDED))
    MASQUERADED.write(tracker.live)
    found = tracker.find(MASQUERADED, MASQUERADED.netns)
    assert found is not None
    assert found.state == "live"


def test_no_descriptor_stays_open(tracker: Tracker) -> None:
    before = os.listdir("/proc/self/fd")
    tracker.find(MASQUERADED, None)
    os.unlink(tracker.pins.path(CLOSED))
    with pytest.raises(LoaderError, match=r"^no tracker is loaded \("):
        tracker.find(MASQUERADED, None)
    assert os.listdir("/proc/self/fd") == before


def test_what_cannot_be_a_flow_is_refused() -> None:
    with pytest.raises(TrackerError, match="protocol is 'x'"):
        keys(None, 0, "x", MASQUERADED.orig)
