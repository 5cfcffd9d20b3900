# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole maps as JSON lines: fast, and the same text as that of each flow."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import json_lines, table
from btfleet._kernel.conntrack.flow import to_dict, to_json
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel.wanted_flows import wanted_flows
from tests.unit.kernel_access import MASQUERADED, MASQUERADED_V6, Wanted, needs_bpf, tracker_map


@needs_bpf
@given(
    st.lists(wanted_flows(), max_size=12),
    st.sampled_from(["live", "closed"]),
    st.sampled_from([0, 1, 2**64 - 1]),
    st.integers(1, 300),
)
def test_lines_are_the_flows_as_json_however_the_map_is_read(
    flows: list[Wanted], state: str, ended_ns: int, size: int
) -> None:
    ended = {flow.netns: ended_ns for flow in flows[::2] if ended_ns}
    with tracker_map() as fd, pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic_ns", lambda: 2**63)
        for flow in flows:
            flow.write(fd)
        entries = list(bpf.map_entries(fd))
        found = table.select(entries, state, None, ended)
        expected = sorted(to_json(flow) + "\n" for flow in found)
        run = b"".join(key + value for key, value in entries)
        pieces = [run[start : start + size] for start in range(0, len(run), size)]
        for lines in (
            json_lines.of_map(fd, state, ended),
            json_lines.of_pieces(pieces, state, ended),
        ):
            assert sorted(b"".join(lines).decode().splitlines(keepends=True)) == expected


@needs_bpf
@pytest.mark.parametrize("family", [0, 1, 255])
def test_an_unknown_family_goes_by_its_number_in_both_forms(family: int) -> None:
    key, value = MASQUERADED_V6.entries()[0]
    key = key[:6] + bytes([family]) + key[7:]
    with tracker_map() as fd:
        bpf.map_update(fd, key, value)
        (line,) = json_lines.of_map(fd, "live", {})
        (flow,) = table.flows(fd, "live")
    assert json.loads(line) == to_dict(flow)
    assert json.loads(line)["family"] == str(family)


@needs_bpf
def test_text_of_addresses_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_CACHED_ADDRESSES", 3)
    with tracker_map() as fd:
        for number in range(50):
            flow = replace(MASQUERADED, orig=(f"10.0.0.{number}", 1, "192.0.2.1", 80))
            replace(flow, reply=("192.0.2.1", 80, "203.0.113.1", number)).write(fd)
        lines = b"".join(json_lines.of_map(fd, "live", {})).decode().splitlines()
    assert {json.loads(line)["orig"]["src"] for line in lines} == {
        f"10.0.0.{number}" for number in range(50)
    }
