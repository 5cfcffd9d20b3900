# SPDX-License-Identifier: GPL-3.0-or-later
"""A load of the tier netlink on this very kernel: the process, the record, and what is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet._config import status
from btfleet._kernel.backends import keeper_unit
from btfleet._kernel.backends.netlink import follower_process, pulse
from btfleet._kernel.conntrack.layout import LIVE
from btfleet._kernel.host.facts import YES, Facts, Probe, gather
from btfleet._kernel.loader import access
from btfleet._kernel.loader import load as load_module
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store

from tests.unit.kernel.nat_namespace import eventually, needs_nat
from tests.unit.kernel_access import bpffs_at

pytestmark = needs_nat


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    """In a bpf file system of its own."""
    real = gather()

    def with_bpffs(_btf_path: str | None = None) -> Facts:
        return replace(real, probes={**real.probes, "bpffs": Probe(YES, "the test's own")})

    monkeypatch.setattr(load_module, "gather", with_bpffs)
    monkeypatch.setattr(keeper_unit, "hand_over", lambda: None)
    store = Store(str(tmp_path / "etc" / "spec.json"), str(tmp_path / "var"))
    with bpffs_at(tmp_path / "bpf") as mount:
        made = Tracker(store, str(mount / "btfleet"), str(tmp_path / "run" / "lock"))
        yield made
        made.unload()


@pytest.fixture
def spec(tracker: Tracker, own_object: bytes) -> Spec:
    return Spec(tracker.store.write_object(own_object), tiers=("netlink",), max_entries=2048)


def pid(tracker: Tracker) -> int:
    found = tracker.active.read_pulse()
    assert found is not None
    return found.pid


def test_a_load_leaves_a_process_that_follows(tracker: Tracker, spec: Spec) -> None:
    outcome = tracker.load(spec)
    assert (outcome.changed, outcome.new_keeper) == (True, True)
    loaded = tracker.read()
    assert loaded.drift == ()
    assert loaded.fingerprint == spec.fingerprint
    assert pid(tracker) != os.getpid()
    assert not tracker.load(spec).changed


def test_the_status_says_that_it_is_degraded_and_why(tracker: Tracker, spec: Spec) -> None:
    tracker.load(spec)
    found = status.read(tracker.active, tracker.store)
    assert found.healthy
    assert found.degraded == "the spec allows only netlink" or "core/" in str(found.degraded)
    assert found.follower is not None
    assert found.follower["alive"] is True
    assert found.maps[LIVE]["max_entries"] == 2048


def test_a_killed_process_is_drift_and_the_next_load_repairs_it(
    tracker: Tracker, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.load(spec)
    first = pid(tracker)
    os.kill(first, signal.SIGKILL)
    monkeypatch.setattr(pulse, "_DEAD_AFTER_NS", 10**9)
    assert eventually(lambda: tracker.read().drift != ())
    assert tracker.read().drift == (f"{pulse.NOT_FOLLOWED}: flows come and go unseen",)
    assert tracker.load(spec).changed
    assert tracker.read().drift == ()
    assert pid(tracker) != first


def test_another_size_brings_a_process_of_its_own_and_the_former_one_ends(
    tracker: Tracker, spec: Spec
) -> None:
    tracker.load(spec)
    first = pid(tracker)
    outcome = tracker.load(replace(spec, max_entries=4096))
    assert (outcome.changed, outcome.new_keeper) == (True, True)
    assert pid(tracker) != first
    assert not follower_process._exists(first)
    assert status.read(tracker.active, tracker.store).maps[LIVE]["max_entries"] == 4096


def test_the_boot_units_process_takes_over(tracker: Tracker, spec: Spec) -> None:
    tracker.load(spec)
    first = pid(tracker)
    unit = replace(tracker, stays=True)
    assert not unit.load(spec).changed
    waiting = unit.follow()
    assert eventually(lambda: pid(tracker) == os.getpid())
    assert tracker.read().drift == ()
    follower_process.await_end(pulse.Pulse(pid=first))
    assert not follower_process._exists(first)
    tracker.unload()
    waiting.wait()


def test_unloading_leaves_neither_pin_nor_process(tracker: Tracker, spec: Spec) -> None:
    tracker.load(spec)
    first = pid(tracker)
    assert tracker.unload()
    assert not os.path.exists(tracker.folder)
    assert not follower_process._exists(first)


def test_the_agents_group_may_read_it_all(tracker: Tracker, spec: Spec) -> None:
    tracker.load(spec)
    access.grant(tracker.folder, 65534)
    assert access.wrong(tracker.folder, 65534) == []
    modes = {
        name: os.stat(tracker.pins.path(name)).st_mode & 0o777 for name in tracker.pins.names()
    }
    assert set(modes.values()) == {0o640}
    assert pulse.PIN in modes
