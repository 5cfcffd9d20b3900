# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules restore_point and rollout_gate: what they record, when they watch, what they say.

Files, releases and units are really there; what the kernel and the agent say is given.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import journal, observe
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.gate import Reading
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.journal import Outcome
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.present import Host

from tests.unit.kernel_access import needs_root
from tests.unit.modules.conftest import Call
from tests.unit.release.fake_host import FakeHost
from tests.unit.rollout.conftest import Put
from tests.unit.rollout.test_way_back import FILES, install_agent, install_object, now, switch

pytestmark = [needs_root, pytest.mark.usefixtures("host", "readings")]

WELL = Reading(loaded=True, fingerprint="f" * 64)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Reading]:
    """What the host says, one reading after the other; the last one for ever."""
    given = [WELL]

    def read(_host: Host, _with_agent: bool) -> Reading:
        return given.pop(0) if len(given) > 1 else given[0]

    monkeypatch.setattr(observe, "read", read)
    return given


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, without waiting."""
    waited: list[float] = []
    clock = iter(range(1_000_000))
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    return waited


def gate(call: Call, **arguments: Any) -> dict[str, Any]:
    return call("rollout_gate", **{"soak_seconds": 7, "settle_seconds": 3, **arguments})


def outcome(host: Host) -> Outcome | None:
    return journal.read_outcome(host.tracker.store)


def releases(host: Host) -> list[str]:
    return sorted(os.listdir(host.releases.releases))


# --- the way back is recorded --------------------------------------------------------------------


def test_a_fresh_host_returns_to_nothing(call: Call) -> None:
    first = call("restore_point", state="recorded")
    assert (first["changed"], first["restore_point"]) == (True, "nothing installed")
    assert call("restore_point", state="recorded")["changed"] is False


def test_a_dry_run_on_a_fresh_host_records_nothing(call: Call, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    assert call("restore_point", _check=True, state="recorded")["changed"] is True
    assert call("restore_point", _check=True, state="restored", reason="x")["changed"] is False
    assert gate(call, _check=True, changed=True)["changed"] is True
    assert set(tmp_path.rglob("*")) == before


def test_a_state_that_was_recorded_is_not_replaced_by_what_a_killed_rollout_left(
    call: Call, host: Host, put: Put
) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    call("restore_point", state="recorded")
    switch(host, "2-b")
    assert call("restore_point", state="recorded")["restore_point"].startswith("release 1-a")


def test_a_state_that_does_not_work_is_not_recorded(
    call: Call, host: Host, fake: FakeHost, put: Put
) -> None:
    put("1-a")
    install_agent(host, "1-a", FILES)
    fake.active.clear()
    result = call("restore_point", state="recorded")
    assert (result["changed"], result["restore_point"]) == (False, None)
    assert result["unfit"] == "btfleet-agent.service does not run"
    failed = call("restore_point", state="restored", reason="it broke")
    assert failed["msg"] == (
        "there is no way back: no state that is known to have worked was recorded"
    )
    found = outcome(host)
    assert found is not None
    assert found[:4] == ("failed", "1-a", "it broke", None)


def test_only_root_reads_the_points(call: Call, host: Host, put: Put) -> None:
    put("1-a")
    install_agent(host, "1-a", FILES)
    answer = call("restore_point", state="recorded")
    assert "the-token" in Path(host.tracker.store.points_path).read_text()
    assert os.stat(host.tracker.store.points_path).st_mode & 0o777 == 0o600
    assert "the-token" not in json.dumps(answer)


# --- and taken -----------------------------------------------------------------------------------


def test_the_way_back_keeps_the_reason(call: Call, host: Host, put: Put) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    call("restore_point", state="recorded")
    switch(host, "2-b")
    result = call("restore_point", state="restored", reason="the agent does not start")
    assert (result["changed"], result["release"], result["agent"]) == (True, "1-a", False)
    assert [step["before_header"] for step in result["diff"]] == ["release"]
    found = outcome(host)
    assert found is not None
    assert found.at > 0
    assert found._replace(at=0) == Outcome(
        "failed", "1-a", "the agent does not start", "release 1-a, no poller agent"
    )


def test_on_a_host_that_was_fresh_point_and_reason_are_all_that_stays(
    call: Call, host: Host, put: Put, own_object: bytes
) -> None:
    call("restore_point", state="recorded")
    put("1-a")
    install_object(host, own_object, 4096)
    switch(host, "1-a")
    call("restore_point", state="restored", reason="it broke")
    left = sorted(os.listdir(host.tracker.store.state_folder))
    assert left == ["restore_points.json", "rollout.json"]
    assert not os.path.lexists(host.releases.root)
    assert now(host).is_nothing


def test_a_way_back_that_fails_says_so(call: Call, host: Host, fake: FakeHost, put: Put) -> None:
    put("1-a")
    put("2-b")
    install_agent(host, "1-a", FILES)
    call("restore_point", state="recorded")
    install_agent(host, "2-b", FILES)
    fake.failing = "restart"
    result = call("restore_point", state="restored", reason="it broke")
    assert result["msg"].startswith("there is no way back: systemctl restart btfleet-agent.service")
    found = outcome(host)
    assert found is not None
    assert found[:2] == ("failed", "2-b")


def test_a_tracker_that_does_not_come_back_is_said(
    call: Call, host: Host, readings: list[Reading], own_object: bytes, monkeypatch: Any
) -> None:
    install_object(host, own_object, 4096)
    point = now(host)
    assert point.tracker is not None
    journal.write_points(
        host.tracker.store, [replace(point, tracker=point.tracker._replace(loaded=True))]
    )
    module = "ansible_collections.btfleet.conntrack.plugins.modules.restore_point"
    monkeypatch.setattr(f"{module}.way_back.reach", lambda *_args: [])
    readings[:] = [Reading()]
    result = call("restore_point", state="restored", reason="it broke")
    assert result["msg"].endswith("no poller agent, but no tracker is loaded")


def test_a_rollback_goes_to_the_release_before_and_leaves_no_reason(
    call: Call, host: Host, put: Put
) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    gate(call)
    switch(host, "2-b")
    gate(call)
    preview = call("restore_point", _check=True, state="restored", release="previous")
    assert preview["release"] == "1-a"
    assert now(host).release == "2-b"
    result = call("restore_point", state="restored", release="previous")
    assert (result["release"], result["releases"]) == ("1-a", ["2-b", "1-a"])
    assert now(host).release == "1-a"
    found = outcome(host)
    assert found is not None
    assert found.outcome == "passed"


# --- the gate ------------------------------------------------------------------------------------


def test_a_host_that_passes_is_watched_and_recorded(
    call: Call, host: Host, slept: list[float], put: Put
) -> None:
    put("1-a")
    switch(host, "1-a")
    result = gate(call, changed=True, fingerprint="f" * 64)
    assert (result["passed"], result["changed"], result["soaked"]) == (True, True, True)
    assert slept == [7]
    assert journal.read_points(host.tracker.store)[0].same(now(host))
    found = outcome(host)
    assert found is not None
    assert found[:3] == ("passed", "1-a", None)


def test_where_nothing_was_changed_it_is_not_watched_again(
    call: Call, host: Host, slept: list[float], put: Put
) -> None:
    put("1-a")
    switch(host, "1-a")
    gate(call, changed=True)
    slept.clear()
    again = gate(call)
    assert (again["passed"], again["changed"], again["soaked"]) == (True, False, False)
    assert again["diff"]["before"] == again["diff"]["after"]
    assert slept == []


def test_a_repair_is_watched_but_is_no_other_state(
    call: Call,
) -> None:
    gate(call, changed=True)
    again = gate(call, changed=True)
    assert (again["soaked"], again["changed"]) == (True, False)


def test_after_a_failure_the_same_state_has_to_pass_again(
    call: Call,
    host: Host,
) -> None:
    gate(call)
    journal.write_outcome(host.tracker.store, Outcome("failed", None, "it broke"))
    again = gate(call)
    assert (again["soaked"], again["changed"]) == (True, True)


def test_a_host_may_take_its_time(call: Call, readings: list[Reading], slept: list[float]) -> None:
    readings[:] = [Reading(), Reading(), WELL]
    assert gate(call, settle_seconds=60)["passed"] is True
    assert slept == [1, 1, 7]


def test_but_not_for_ever(
    call: Call, host: Host, readings: list[Reading], slept: list[float]
) -> None:
    readings[:] = [Reading()]
    result = gate(call, settle_seconds=3)
    assert result["msg"] == "the host is not well: no tracker is loaded"
    assert (result["reasons"], result["soaked"]) == (["no tracker is loaded"], False)
    assert 7 not in slept
    assert outcome(host) is None
    assert journal.read_points(host.tracker.store) == []


def test_what_gets_worse_while_it_is_watched_fails(
    call: Call, host: Host, readings: list[Reading]
) -> None:
    readings[:] = [WELL, replace(WELL, load_failures=1, drift=("pin x is missing",))]
    result = gate(call)
    assert result["msg"] == (
        "the host is not well: the tracker is not as it was loaded: pin x is missing; "
        "1 loads failed"
    )
    assert result["soaked"] is True
    assert outcome(host) is None


def test_a_dry_run_fails_where_no_change_is_to_come_that_could_help(
    call: Call, readings: list[Reading], slept: list[float]
) -> None:
    readings[:] = [Reading()]
    assert gate(call, _check=True, changed=True)["passed"] is True
    assert "no tracker is loaded" in gate(call, _check=True)["msg"]
    assert slept == []


def test_a_release_that_only_the_way_back_needed_goes_when_the_next_has_passed(
    call: Call, host: Host, put: Put
) -> None:
    for name in ("1-a", "2-b"):
        put(name)
        switch(host, name)
        gate(call, keep=0)
    assert releases(host) == ["2-b"]
    assert [point.release for point in journal.read_points(host.tracker.store)] == ["2-b"]


@pytest.mark.parametrize("name", ["settle_seconds", "soak_seconds", "keep"])
def test_a_negative_number_is_refused(call: Call, name: str) -> None:
    assert gate(call, **{name: -1})["msg"] == f"{name} is -1, needed: 0 or more"


def test_uninstalling_takes_both_files_along(
    call: Call,
    host: Host,
) -> None:
    gate(call)
    store = host.tracker.store
    assert store.exists()
    store.remove()
    assert not os.path.lexists(store.state_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outcome": "passed", "more": 1}', "null"])
def test_a_damaged_outcome_is_not_known(host: Host, text: str) -> None:
    path = Path(host.tracker.store.rollout_path)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert outcome(host) is None
