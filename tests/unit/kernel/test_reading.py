# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole maps are read the same with and without pinned iterators (those are shown in guests)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import reading
from btfleet._kernel.conntrack.flow import to_dict, to_json
from btfleet._kernel.conntrack.layout import LIVE
from btfleet._kernel.errors import LoaderError

from tests.unit.kernel_access import MASQUERADED, PING, bpffs_at, needs_bpf, tracker_map


def test_entries_are_cut_wherever_the_pieces_end() -> None:
    pairs = [(bytes([n]) * 4, bytes([n + 100]) * 6) for n in range(9)]
    run = b"".join(key + value for key, value in pairs)
    for size in (1, 3, 10, 11, 40, 90, 200):
        pieces = [run[start : start + size] for start in range(0, len(run), size)]
        assert list(bpf.split_entries(pieces, 4, 6)) == pairs


def test_a_pinned_iterator_is_read_to_its_end(tmp_path: Path) -> None:
    """A file stands for the pin: both give their text to read(2)."""
    run = b"".join(key + value for key, value in MASQUERADED.entries())
    (tmp_path / reading.ENTRIES[LIVE]).write_bytes(run)
    pins = Pins(str(tmp_path))
    assert list(reading.entries(pins, LIVE)) == MASQUERADED.entries()
    assert reading.fill(pins, LIVE) == 2
    (line,) = reading.json_lines(pins, "live")
    (flow,) = reading.flows(pins, "live")
    assert line.decode() == to_json(flow) + "\n"


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Pins]:
    with bpffs_at(tmp_path / "bpf") as mount, tracker_map() as fd:
        for flow in (MASQUERADED, PING):
            flow.write(fd)
        found = Pins(str(mount / "btfleet"))
        os.mkdir(found.folder)
        bpf.obj_pin(fd, found.path(LIVE))
        yield found


@needs_bpf
def test_without_an_iterator_the_map_itself_is_read(pins: Pins) -> None:
    expected = sorted([*MASQUERADED.entries(), *PING.entries()])
    assert sorted(reading.entries(pins, LIVE)) == expected
    assert reading.fill(pins, LIVE) == 4
    lines = b"".join(reading.json_lines(pins, "live")).splitlines()
    flows = reading.flows(pins, "live")
    assert sorted(map(json.loads, lines), key=str) == sorted(map(to_dict, flows), key=str)


@needs_bpf
def test_without_a_tracker_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoaderError, match=r"^no tracker is loaded"):
        reading.fill(Pins(str(tmp_path)), LIVE)
