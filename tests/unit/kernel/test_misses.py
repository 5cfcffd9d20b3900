# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel passed over: where it counts that, and where the agent finds it."""

from __future__ import annotations

import os
import struct

import pytest
from btfleet._kernel.backends import attach
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack.layout import COUNTERS, MISSES, read_counters
from btfleet._kernel.host import symbols
from btfleet._kernel.loader import misses

from tests.unit.kernel_access import hash_map, needs_bpf


@pytest.mark.parametrize(
    ("kind", "event", "missed"),
    [
        (7, 3, 34046),  # a kprobe
        (7, 4, 34046),  # at a function's return
        (7, 1, 0),  # a uprobe: other members lie there
        (7, 5, 0),  # a tracepoint
        (2, 3, 0),  # a tracing program
    ],
)
def test_a_kprobes_link_tells_its_misses(kind: int, event: int, missed: int) -> None:
    # type, id, prog_id; perf_event: type, func_name, name_len, offset, addr, missed, cookie
    raw = struct.pack("=4IIIQIIQQQ", kind, 9, 8, 0, event, 0, 1, 2, 3, 4, 34046, 5)
    assert bpf.parse_link_info(raw) == (kind, 9, 8, missed)


def test_a_kprobe_multi_link_tells_its_misses() -> None:
    raw = struct.pack("=4IQIIQQ", 8, 9, 8, 0, 1, 2, 3, 34046, 5).ljust(64, b"\0")
    assert bpf.parse_link_info(raw) == (8, 9, 8, 34046)


def test_a_kernel_that_does_not_count_them_leaves_zeros() -> None:
    raw = struct.pack("=4IIIQIIQ", 7, 9, 8, 0, 3, 0, 1, 2, 3, 4).ljust(64, b"\0")
    assert bpf.parse_link_info(raw).missed == 0


def test_every_program_that_stays_attached_has_a_counter() -> None:
    roles = {
        probe.role
        for tier in ("core/kprobe", "core/kretprobe")
        for probe in attach.probes_of(tier, symbols.ATTACHED, {})
    }
    assert {misses.counter_of(role) for role in roles} == set(MISSES)
    assert misses.counter_of("note_confirm") == misses.counter_of("insert_check")
    assert misses.counter_of("entries") is None


RECORD: dict[str, object] = {
    "programs": {"delete": 1, "note_check": 2, "insert_check": 3, "entries": 4},
    "links": {
        "link_delete": 11,
        "link_note_check": 12,
        "link_insert_check": 13,
        "entries_live": 14,
    },
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """A kernel where each program has 10 misses and each link 1; the ids that are refused."""
    refused: set[int] = set()

    def opened(_command: int, number: int) -> int:
        if number in refused:
            raise PermissionError
        return os.open("/dev/null", os.O_RDONLY)

    info = bpf.ProgInfo(2, 1, "", "", (), 0, 0, recursion_misses=10)
    monkeypatch.setattr(bpf, "fd_by_id", opened)
    monkeypatch.setattr(bpf, "prog_info", lambda _fd: info)
    monkeypatch.setattr(bpf, "link_info", lambda _fd: bpf.LinkInfo(7, 1, 1, 1))
    return refused


@pytest.mark.usefixtures("kernel")
def test_programs_and_links_are_added_up() -> None:
    assert misses.read(RECORD) == {"delete_missed": 11, "insert_missed": 22}


@pytest.mark.usefixtures("kernel")
def test_links_that_a_process_holds_are_not_asked() -> None:
    held = {**RECORD, "links": {}}
    assert misses.read(held) == {"delete_missed": 10, "insert_missed": 20}


def test_without_the_privilege_nothing_is_said(kernel: set[int]) -> None:
    kernel |= {1, 2, 3, 11, 12, 13}
    assert misses.read(RECORD) == {}
    assert misses.read(None) == {}


@needs_bpf
def test_saved_misses_are_among_the_counters_for_whoever_reads_them() -> None:
    with hash_map(4, 8, len(COUNTERS), bpf.PERCPU_ARRAY) as fd:
        assert read_counters(fd) == dict.fromkeys(COUNTERS, 0)
        misses.save(fd, {"insert_missed": 7, "delete_missed": 2})
        misses.save(fd, {"insert_missed": 5})
        found = read_counters(fd)
    assert {name: number for name, number in found.items() if number} == {
        "insert_missed": 5,
        "delete_missed": 2,
    }
