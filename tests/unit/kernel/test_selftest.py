# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's own flows: real ones in the kernel's table, and what a tracker makes of them."""

from __future__ import annotations

import itertools
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from btfleet._kernel.backends import seed
from btfleet._kernel.backends.selftest import FROM_BEFORE, NEW, OwnFlows, SelfTest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack.ctnetlink import Flow
from btfleet._kernel.conntrack.layout import COUNTERS, FLAG_ORIG, VALUE, possible_cpus
from btfleet._kernel.errors import LoaderError

from tests.unit.kernel_access import hash_map, needs_bpf, needs_root

pytestmark = [needs_bpf, needs_root]


@pytest.fixture
def own() -> Iterator[OwnFlows]:
    with OwnFlows() as flows:
        yield flows


def count(own: OwnFlows) -> int:
    def inside() -> int:
        with open("/proc/thread-self/net/stat/nf_conntrack", encoding="ascii") as stream:
            return int(stream.read().splitlines()[1].split()[0], 16)

    return own.run(inside)


def test_they_are_in_the_kernels_table_of_a_namespace_of_their_own(own: OwnFlows) -> None:
    assert own.netns != os.stat("/proc/self/ns/net").st_ino
    own.create(FROM_BEFORE)
    own.create(NEW)
    assert count(own) == 2
    own.delete(NEW)
    assert count(own) == 1


def test_they_are_translated_and_do_not_meet() -> None:
    assert FROM_BEFORE.is_translated
    assert NEW.is_translated
    assert not {*FROM_BEFORE.keys(1)} & {*NEW.keys(1)}


def test_nothing_is_left_of_them() -> None:
    threads = threading.enumerate()
    descriptors = len(os.listdir("/proc/self/fd"))
    with OwnFlows() as own:
        own.create(NEW)
    assert threading.enumerate() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


PROGRAMS = {"insert_check": 0, "insert_confirm": 0, "delete": 0}
FUNCTIONS = {"insert_check": "I", "insert_confirm": "I", "delete": "D"}


@dataclass
class Tracker:
    """Does by map calls what the programs do, as far as it is told to."""

    own: OwnFlows
    live: int
    closed: int
    counters: int
    test: SelfTest
    monkeypatch: pytest.MonkeyPatch

    def entries(self, flow: Flow, generation: int = 0) -> list[tuple[bytes, bytes]]:
        keys = flow.keys(self.own.netns)
        others = ((flow.reply, FLAG_ORIG), (flow.orig, 0))
        return [
            (key, VALUE.pack(1, 1, 0, *other, flags, generation))
            for key, (other, flags) in zip(keys, others)
        ]

    def write(self, fd: int, flow: Flow, generation: int = 0) -> None:
        for key, value in self.entries(flow, generation):
            bpf.map_update(fd, key, value)

    def sees(
        self, comes: bool = True, goes: bool = True, to: Flow = NEW, runs: bool = True
    ) -> None:
        """The programs see NEW, and take it for `to`; the kernel counts their runs."""
        number = itertools.count() if runs else itertools.repeat(0)
        self.monkeypatch.setattr(
            bpf, "prog_info", lambda _fd: bpf.ProgInfo(2, 1, "", "", (), 0, next(number), 0)
        )
        create, delete = self.own.create, self.own.delete

        def created(flow: Flow) -> None:
            create(flow)
            if comes:
                self.write(self.live, to)

        def deleted(flow: Flow) -> None:
            delete(flow)
            if goes:
                self.write(self.closed, to)
                for key, _value in self.entries(to):
                    bpf.map_delete(self.live, key)

        self.monkeypatch.setattr(self.own, "create", created)
        self.monkeypatch.setattr(self.own, "delete", deleted)


@pytest.fixture
def tracker(own: OwnFlows, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    with (
        hash_map(44, 64, 8) as live,
        hash_map(44, 64, 8) as closed,
        hash_map(4, 8, len(COUNTERS), bpf.PERCPU_ARRAY) as counters,
    ):
        yield Tracker(
            own, live, closed, counters, SelfTest(own, live, closed, counters), monkeypatch
        )


def test_programs_that_see_the_flow_pass(tracker: Tracker) -> None:
    tracker.sees()
    tracker.test.of_programs(PROGRAMS, FUNCTIONS)
    assert bpf.map_fill(tracker.closed, bpf.map_info(tracker.closed)) == 0
    assert count(tracker.own) == 0


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"comes": False, "goes": False}, "was not seen when it came"),
        ({"goes": False}, "was not seen when it went"),
        ({"to": NEW._replace(reply=FROM_BEFORE.reply)}, "was not seen when it came"),
    ],
)
def test_a_program_that_sees_nothing_or_something_else_is_refused_in_one_line(
    tracker: Tracker, seen: dict[str, bool], said: str
) -> None:
    tracker.sees(**seen)  # type: ignore[arg-type]
    with pytest.raises(LoaderError, match=said) as refusal:
        tracker.test.of_programs(PROGRAMS, FUNCTIONS)
    assert f"does not use {'D' if 'went' in said else 'I'} as it should" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_program_that_does_not_run_is_refused_though_a_former_one_does_its_work(
    tracker: Tracker,
) -> None:
    tracker.sees(runs=False)
    with pytest.raises(LoaderError, match="was not seen when it came: this kernel does not use I"):
        tracker.test.of_programs(PROGRAMS, FUNCTIONS)


def test_a_full_map_is_no_fault_of_the_programs(tracker: Tracker) -> None:
    tracker.sees(comes=False, goes=False)
    create = tracker.own.create

    def created(flow: Flow) -> None:
        create(flow)
        one = struct.pack("=Q", 1).ljust(8 * possible_cpus(), b"\0")
        bpf.map_update(tracker.counters, struct.pack("=I", COUNTERS.index("live_full")), one)

    tracker.monkeypatch.setattr(tracker.own, "create", created)
    tracker.test.of_programs(PROGRAMS, FUNCTIONS)


@pytest.mark.parametrize(("generation", "passes"), [(7, True), (6, False)])
def test_the_sync_program_has_to_mark_the_flow_with_this_pass(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, generation: int, passes: bool
) -> None:
    tracker.own.create(FROM_BEFORE)
    tracker.write(tracker.live, FROM_BEFORE, generation)
    dumped = []
    drain = seed.drain_dump
    monkeypatch.setattr(seed, "drain_dump", lambda portid: dumped.append(drain(portid)))
    if passes:
        tracker.test.of_sync(seed.random_portid(), 7, "FUNCTION")
    else:
        with pytest.raises(LoaderError, match=r"was not taken in: .* FUNCTION"):
            tracker.test.of_sync(seed.random_portid(), 7, "FUNCTION")
    assert dumped == [1]
