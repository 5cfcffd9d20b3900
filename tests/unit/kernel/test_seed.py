# SPDX-License-Identifier: GPL-3.0-or-later
"""Take-in of existing flows: every table is read to its end, and what is stale goes."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from btfleet._kernel.backends import seed
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import namespaces
from btfleet._kernel.conntrack.layout import LOAD
from btfleet._kernel.conntrack.namespaces import Namespace
from btfleet._kernel.errors import LoaderError

from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    PING,
    namespace,
    needs_bpf,
    needs_root,
    tracker_map,
)

HERE = {MASQUERADED.netns}


@pytest.fixture
def other() -> Iterator[str]:
    with namespace() as path:
        yield path


def inside(path: str, function: Callable[[], object]) -> None:
    Namespace(os.stat(path).st_ino, [path]).run(function)


def conntrack(path: str, *arguments: str) -> str:
    done = subprocess.run(
        ["nsenter", f"--net={path}", "conntrack", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"conntrack {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def add_flows(path: str, count: int) -> None:
    for number in range(count):
        conntrack(
            path,
            *("-I", "-p", "udp", "-t", "600", "-s", "10.0.0.2", "-d", "192.0.2.1"),
            *("--sport", str(1000 + number), "--dport", "53", "--dst-nat", "203.0.113.1"),
        )


# --- passes --------------------------------------------------------------------------------------


def test_passes_wrap_and_never_have_number_0() -> None:
    numbers = [0]
    for _pass in range(600):
        numbers.append(seed.next_pass(numbers[-1]))
    assert numbers[:4] == [0, 1, 2, 3]
    assert set(numbers[1:]) == set(range(1, 256))
    assert all(one != other for one, other in zip(numbers, numbers[1:]))


def test_a_port_id_is_none_that_a_process_gets() -> None:
    numbers = {seed.random_portid() for _time in range(20)}
    assert len(numbers) > 1
    assert all(2**31 <= number < 2**32 for number in numbers)


# --- the dump ------------------------------------------------------------------------------------


def messages(datagram: bytes) -> Iterator[int]:
    """The types of the messages in a datagram."""
    while datagram:
        length, kind = struct.unpack_from("=IH", datagram)
        yield kind
        datagram = datagram[(length + 3) & ~3 :]


@needs_root
@pytest.mark.parametrize("count", [0, 1, 40])
def test_a_dump_is_read_to_its_end(other: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add_flows(other, count)
    seen: list[int] = []
    original = seed._scan

    def recorded(datagram: memoryview) -> tuple[int, bool]:
        seen.extend(messages(bytes(datagram)))
        return original(datagram)

    monkeypatch.setattr(seed, "_scan", recorded)
    counted: list[int] = []
    inside(other, lambda: counted.append(seed.drain_dump(seed.random_portid())))
    assert counted == [count]
    listed = conntrack(other, "-L").splitlines()
    flow, done = 1 << 8, 3
    assert seen.count(flow) == len(listed) == count
    assert seen[-1] == done


@needs_root
def test_two_dumps_cannot_have_one_port_id(other: str) -> None:
    import socket  # noqa: PLC0415

    def twice() -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, seed.NETLINK_NETFILTER) as taken:
            taken.bind((0x80001234, 0))
            seed.drain_dump(0x80001234)

    with pytest.raises(OSError, match="Address already in use"):
        inside(other, twice)


@pytest.mark.parametrize(
    ("datagram", "ends"),
    [
        (b"", False),
        (struct.pack("=IHHII", 16, 256, 2, 1, 1), False),
        (struct.pack("=IHHIIi", 20, 3, 2, 1, 1, 0), True),
        (
            struct.pack("=IHHII4x", 17, 256, 2, 1, 1) + struct.pack("=IHHIIi", 20, 3, 2, 1, 1, 0),
            True,
        ),
        (struct.pack("=IHHII", 0, 256, 2, 1, 1), False),
    ],
)
def test_the_end_of_a_dump_is_seen_anywhere_in_a_datagram(datagram: bytes, ends: bool) -> None:
    assert seed._scan(memoryview(datagram))[1] is ends


def test_an_error_message_is_an_error() -> None:
    datagram = struct.pack("=IHHIIi16x", 36, 2, 0, 1, 1, -1)
    with pytest.raises(PermissionError):
        seed._scan(memoryview(datagram))


# --- stale entries -------------------------------------------------------------------------------


def remove_stale(fd: int, start_ns: int, visited: set[int]) -> int:
    """What a load removes after pass 7."""
    return seed._remove(fd, seed.MapCalls().stale(fd, start_ns, 7), visited)


@needs_bpf
def test_only_entries_that_no_pass_came_by_are_removed() -> None:
    start = 1000
    stale = replace(MASQUERADED, created_ns=999, generation=6)
    never = replace(PING, created_ns=0, generation=0)
    current = replace(MASQUERADED_V6, created_ns=5, generation=7)
    with tracker_map() as fd:
        for flow in (stale, never, current):
            flow.write(fd)
        assert remove_stale(fd, start, HERE) == 4
        left = {
            key: bpf.map_lookup(fd, key, 64)
            for keys, _values in bpf.map_batches(fd, bpf.map_info(fd))
            for key in (keys[:44], keys[44:])
        }
    assert left == dict(current.entries())


@needs_bpf
def test_entries_of_a_namespace_that_was_not_visited_are_kept() -> None:
    with tracker_map() as fd:
        replace(MASQUERADED, created_ns=0, generation=6, netns=1).write(fd)
        assert remove_stale(fd, 1000, HERE) == 0
        assert remove_stale(fd, 1000, set()) == 0
        assert remove_stale(fd, 1000, {1}) == 2


@needs_bpf
def test_what_a_pass_wrote_and_the_last_one_did_not_see_is_removed() -> None:
    """Its time is later than the start, but not when its flow came."""
    with tracker_map() as fd:
        replace(MASQUERADED, created_ns=1001, generation=6, seeded=True).write(fd)
        replace(PING, created_ns=1001, generation=7, seeded=True).write(fd)
        assert remove_stale(fd, 1000, HERE) == 2
        assert bpf.map_fill(fd, bpf.map_info(fd)) == 2


@needs_bpf
@pytest.mark.parametrize("created", [1000, 1001, 2**63])
def test_entries_that_the_insert_program_wrote_meanwhile_are_kept(created: int) -> None:
    with tracker_map() as fd:
        replace(MASQUERADED, created_ns=created, generation=0).write(fd)
        assert remove_stale(fd, 1000, HERE) == 0
        assert bpf.map_fill(fd, bpf.map_info(fd)) == 2


@needs_bpf
def test_an_entry_that_changes_while_it_is_looked_at_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A successor took the tuple after the batch was read."""
    old = replace(MASQUERADED, ct=1, created_ns=1, generation=6)
    successor = replace(MASQUERADED, ct=2, created_ns=2000, generation=0)
    original = bpf.map_batches

    def batches(fd: int, info: bpf.MapInfo) -> Iterator[tuple[bytes, bytes]]:
        for chunk in list(original(fd, info)):
            successor.write(fd)
            yield chunk

    with tracker_map() as fd:
        old.write(fd)
        with monkeypatch.context() as patch:
            patch.setattr(bpf, "map_batches", batches)
            assert remove_stale(fd, 1000, HERE) == 0
        for key, value in successor.entries():
            assert bpf.map_lookup(fd, key, 64) == value


@needs_bpf
def test_an_entry_that_goes_while_it_is_looked_at_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = bpf.map_batches

    def batches(fd: int, info: bpf.MapInfo) -> Iterator[tuple[bytes, bytes]]:
        for chunk in list(original(fd, info)):
            for key, _value in MASQUERADED.entries():
                bpf.map_delete(fd, key)
            yield chunk

    with tracker_map() as fd:
        MASQUERADED.write(fd)
        monkeypatch.setattr(bpf, "map_batches", batches)
        assert remove_stale(fd, 1000, HERE) == 0


# --- take-in -------------------------------------------------------------------------------------


class Passes(seed.MapCalls):
    """Keeps the numbers that the seed program is told."""

    def __init__(self, told: list[int]) -> None:
        super().__init__(lambda load: told.append(LOAD.unpack(load)[2]))


def only(path: str) -> Callable[[], dict[int, Namespace]]:
    inode = os.stat(path).st_ino
    return lambda: {inode: Namespace(inode, [path])}


@needs_bpf
def test_a_round_of_two_passes_is_enough_where_nothing_is_stale(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "find", only(other))
    passes: list[int] = []
    with tracker_map() as fd:
        replace(MASQUERADED, netns=os.stat(other).st_ino, generation=1).write(fd)
        assert seed.take_in(fd, Passes(passes), seed.random_portid(), 254) == 1
        assert bpf.map_fill(fd, bpf.map_info(fd)) == 2
    assert passes == [255, 1]


@needs_bpf
def test_a_removal_is_followed_by_another_round(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "find", only(other))
    passes: list[int] = []
    with tracker_map() as fd:
        inode = os.stat(other).st_ino
        replace(MASQUERADED, netns=inode, generation=9, created_ns=0).write(fd)
        assert seed.take_in(fd, Passes(passes), seed.random_portid(), 0) == 4
        assert bpf.map_fill(fd, bpf.map_info(fd)) == 0
    assert passes == [1, 2, 3, 4]


@needs_root
@needs_bpf
def test_a_program_that_runs_for_too_few_flows_ends_the_load_and_removes_nothing(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_flows(other, 40)
    monkeypatch.setattr(namespaces, "find", only(other))
    passes: list[int] = []
    with tracker_map() as fd:
        inode = os.stat(other).st_ino
        replace(MASQUERADED, netns=inode, generation=9, created_ns=0).write(fd)
        with pytest.raises(LoaderError, match="40 of 40 flows that exist went past the program"):
            seed.take_in(fd, Passes(passes), seed.random_portid(), 0, lambda: 0)
        assert bpf.map_fill(fd, bpf.map_info(fd)) == 2
    # Something may have been passed over just once
    assert len(passes) == 2 * seed.MAX_ROUNDS


@needs_root
@needs_bpf
def test_a_program_that_runs_more_often_than_there_are_flows_is_well(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_flows(other, 40)
    monkeypatch.setattr(namespaces, "find", only(other))
    runs = iter(range(0, 1000, 41))
    with tracker_map() as fd:
        portid = seed.random_portid()
        assert seed.take_in(fd, seed.MapCalls(), portid, 0, lambda: next(runs)) == 2


@needs_bpf
def test_rounds_end_even_if_something_is_always_stale(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "find", only(other))
    monkeypatch.setattr(seed, "_remove", lambda *_arguments: 1)
    passes: list[int] = []
    with tracker_map() as fd:
        last = seed.take_in(fd, Passes(passes), seed.random_portid(), 0)
    assert last == passes[-1] == 2 * seed.MAX_ROUNDS


@needs_bpf
def test_a_namespace_that_disappears_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # Found, and not any more when it is looked for again
    answers = itertools.cycle([{17: Namespace(17, ["/proc/0/ns/net"])}, {}])
    monkeypatch.setattr(namespaces, "find", lambda: next(answers))
    with tracker_map() as fd:
        assert seed.take_in(fd, seed.MapCalls(), seed.random_portid(), 0) == 2


@needs_bpf
def test_a_namespace_that_cannot_be_entered_stops_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "find", lambda: {17: Namespace(17, ["/dev/null"])})
    with tracker_map() as fd, pytest.raises(LoaderError) as caught:
        seed.take_in(fd, seed.MapCalls(), seed.random_portid(), 0)
    assert str(caught.value) == (
        "cannot enter network namespace 17 (/dev/null: leads elsewhere (a later mount hides it)): "
        "existing flows would be missing, so nothing was loaded"
    )


@needs_bpf
def test_a_namespace_whose_table_cannot_be_read_stops_the_load(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "find", only(other))
    monkeypatch.setattr(seed, "_COUNT_FILE", "/nowhere/count")
    with tracker_map() as fd, pytest.raises(LoaderError) as caught:
        seed.take_in(fd, seed.MapCalls(), seed.random_portid(), 0)
    assert str(caught.value) == (
        f"cannot read the flows of network namespace {os.stat(other).st_ino} (No such file or "
        "directory): existing flows would be missing, so nothing was loaded"
    )


@needs_root
@pytest.mark.parametrize(("count", "asked"), [(0, False), (2, True)])
def test_empty_tables_are_not_asked_for(
    other: str, count: int, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_flows(other, count)
    portids: list[int] = []
    monkeypatch.setattr(seed, "drain_dump", portids.append)
    inside(other, lambda: seed._drain_if_any(5))
    assert portids == ([5] if asked else [])


# --- copying -------------------------------------------------------------------------------------


@needs_bpf
def test_entries_are_copied_and_those_there_are_kept() -> None:
    newer = replace(MASQUERADED, ct=99)
    with tracker_map() as source, tracker_map() as target:
        MASQUERADED.write(source)
        MASQUERADED_V6.write(source)
        newer.write(target)
        seed.MapCalls().copy(source, target)
        for key, value in [*newer.entries(), *MASQUERADED_V6.entries()]:
            assert bpf.map_lookup(target, key, 64) == value


@needs_bpf
def test_flows_closed_before_a_moment_are_not_copied() -> None:
    with tracker_map() as source, tracker_map() as target:
        MASQUERADED.write(source)
        seed.MapCalls().copy(source, target, since_ns=1)
        assert bpf.map_fill(target, bpf.map_info(target)) == 0


@needs_bpf
def test_a_smaller_map_takes_what_fits() -> None:
    with tracker_map() as source, tracker_map(8) as target:
        for number in range(10):
            flow = replace(MASQUERADED, orig=("10.0.0.2", number, "192.0.2.1", 80))
            replace(flow, reply=("192.0.2.1", 80, "203.0.113.1", number)).write(source)
        seed.MapCalls().copy(source, target)
        assert bpf.map_fill(target, bpf.map_info(target)) == 8


def test_the_clock_of_entries_is_the_programs_own() -> None:
    """bpf_ktime_get_ns() is CLOCK_MONOTONIC, and so is what stale entries are compared with."""
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"
