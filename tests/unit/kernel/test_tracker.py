# SPDX-License-Identifier: GPL-3.0-or-later
"""What is loaded is compared with what was recorded, and a refused load touches none of it.

The pins here are real maps and links in a bpf file system of the test's own; the links are those
of a program that does nothing, since not every machine lets tracing programs be attached.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from btfleet._config import status
from btfleet._kernel.backends import programs, seed
from btfleet._kernel.backends.base import Request, former_maps, kept_maps
from btfleet._kernel.backends.seed import Reconciled
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import record_map
from btfleet._kernel.conntrack.layout import CLOSED, COUNTERS, COUNTERS_MAP, LIVE
from btfleet._kernel.errors import BtfNotFound, LoaderError
from btfleet._kernel.host.facts import BtfFacts, Facts, Probe
from btfleet._kernel.host.support import Verdict
from btfleet._kernel.loader import load as load_module
from btfleet._kernel.loader import lock, memory, telemetry
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.loader.state import Loaded
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store

from tests.unit.kernel_access import (
    MASQUERADED,
    bpffs_at,
    hash_map,
    link_in,
    namespace,
    needs_bpf,
    tracker_map,
)

pytestmark = needs_bpf


class Host:
    """A host with a tracker loaded by hand."""

    def __init__(self, tracker: Tracker, spec: Spec, stack: ExitStack) -> None:
        self.tracker = tracker
        self.spec = spec
        self._stack = stack
        links = {name: self.link() for name in ("link_insert", "link_delete")}
        self.maps = {
            LIVE: stack.enter_context(tracker_map(spec.max_entries)),
            CLOSED: stack.enter_context(hash_map(44, 64, spec.closed_entries, bpf.LRU_HASH)),
            COUNTERS_MAP: stack.enter_context(hash_map(4, 8, len(COUNTERS), bpf.PERCPU_ARRAY)),
        }
        self.record: dict[str, Any] = {
            "fingerprint": spec.fingerprint,
            "spec": spec.to_dict(),
            "tier": "core/kprobe",
            "lifecycle": "pinned",
            "btf_source": "kernel",
            "btf_result": "default",
            "kernel": "6.1.0",
            "programs": {name[5:]: program for name, (_fd, program) in links.items()},
            "tags": {"insert": "0" * 16, "delete": "1" * 16},
            "links": {name: bpf.link_info(fd).id for name, (fd, _program) in links.items()},
            "maps": {name: bpf.map_info(fd).id for name, fd in self.maps.items()},
            "loaded_at": int(time.time()),
            "last_pass": 2,
        }
        record = record_map.make(self.record)
        stack.callback(os.close, record)
        tracker.pins.replace(
            {**{name: fd for name, (fd, _path) in links.items()}, **self.maps, "loaded": record}
        )

    def link(self) -> tuple[int, int]:
        """Another link of another program, in a namespace of its own."""
        return self._stack.enter_context(link_in(self._stack.enter_context(namespace())))

    def repin(self, name: str, fd: int) -> None:
        os.unlink(self.tracker.pins.path(name))
        bpf.obj_pin(fd, self.tracker.pins.path(name))


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    store = Store(str(tmp_path / "etc" / "spec.json"), str(tmp_path / "var"))
    with bpffs_at(tmp_path / "bpf") as mount:
        run = tmp_path / "run"
        yield Tracker(store, str(mount / "btfleet"), str(run / "lock"), str(run / "holder"))


@pytest.fixture
def host(tracker: Tracker, own_object: bytes) -> Iterator[Host]:
    with ExitStack() as stack:
        digest = tracker.store.write_object(own_object)
        try:
            yield Host(tracker, Spec(digest, max_entries=2048, closed_entries=1024), stack)
        except PermissionError as exc:
            pytest.skip(f"this machine makes no links: {exc.strerror}")


# --- reading back --------------------------------------------------------------------------------


def test_nothing_is_loaded_where_nothing_is_pinned(tracker: Tracker) -> None:
    assert tracker.read() == Loaded()
    assert status.read(tracker.active, tracker.store).healthy is False
    assert tracker.unload() is False


def test_what_was_loaded_reads_back_without_drift(host: Host) -> None:
    loaded = host.tracker.read()
    assert loaded.record == host.record
    assert loaded.drift == ()
    assert loaded.fingerprint == host.spec.fingerprint


@pytest.mark.parametrize("name", ["link_insert", "link_delete", LIVE, CLOSED, COUNTERS_MAP])
def test_a_missing_pin_is_drift(host: Host, name: str) -> None:
    os.unlink(host.tracker.pins.path(name))
    assert host.tracker.read().drift == (f"pin {name} is missing",)


def test_another_map_in_a_maps_place_is_drift(host: Host) -> None:
    with tracker_map() as other:
        host.repin(LIVE, other)
        found = bpf.map_info(other).id
        expected = (f"pin {LIVE} holds map {found}, not map {host.record['maps'][LIVE]}",)
        assert host.tracker.read().drift == expected


def test_another_link_in_a_links_place_is_drift(host: Host) -> None:
    fd, program = host.link()
    host.repin("link_insert", fd)
    assert host.tracker.read().drift == (
        (
            f"pin link_insert holds link {bpf.link_info(fd).id} of program {program}, "
            f"not link {host.record['links']['link_insert']}"
        ),
    )


def test_a_pin_that_nobody_knows_is_drift(host: Host) -> None:
    with hash_map(4, 4, 1) as other:
        bpf.obj_pin(other, host.tracker.pins.path("stranger"))
        assert host.tracker.read().drift == ("unknown pin stranger",)


def test_a_missing_record_is_drift(host: Host) -> None:
    os.unlink(host.tracker.pins.path("loaded"))
    loaded = host.tracker.read()
    assert loaded.record is None
    assert loaded.drift == ("the record of what was loaded is missing or damaged",)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"{}", b"\xff\xfe"])
def test_a_damaged_record_is_drift(host: Host, content: bytes) -> None:
    with bpf.closing(bpf.map_create(bpf.ARRAY, 4, 4096, 1)) as fd:
        bpf.map_update(fd, bytes(4), content.ljust(4096, b"\0"))
        host.repin("loaded", fd)
        assert host.tracker.read().record is None


def test_reading_leaves_nothing_open(host: Host) -> None:
    before = len(os.listdir("/proc/self/fd"))
    host.tracker.read()
    status.read(host.tracker.active, host.tracker.store)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_record_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(LoaderError, match="the record takes 5011 bytes, room is for 4096"):
        record_map.make({"text": "x" * 5000})


# --- status --------------------------------------------------------------------------------------


def test_status_counts_entries_and_counters(host: Host) -> None:
    MASQUERADED.write(host.maps[LIVE])
    telemetry.count(host.tracker.store, "conntrack", "default")
    found = status.read(host.tracker.active, host.tracker.store)
    assert found.healthy
    assert found.maps == {
        LIVE: {"max_entries": 2048, "entries": 2},
        CLOSED: {"max_entries": 1024, "entries": 0},
    }
    assert found.counters == dict.fromkeys(COUNTERS, 0)
    assert [row["result"] for row in found.load_results] == ["default"]
    data = found.to_dict()
    assert (data["loaded"], data["healthy"]) == (True, True)
    assert json.loads(json.dumps(data))["record"] == host.record


def test_status_can_be_spared_the_counting(host: Host) -> None:
    assert status.read(host.tracker.active, host.tracker.store, fill=False).maps[LIVE] == {
        "max_entries": 2048
    }


def test_drift_is_not_healthy(host: Host) -> None:
    os.unlink(host.tracker.pins.path("link_insert"))
    assert not status.read(host.tracker.active, host.tracker.store).healthy


def test_maps_open_for_reading_only(host: Host) -> None:
    with bpf.closing(host.tracker.pins.open_map(LIVE)) as fd, pytest.raises(PermissionError):
        bpf.map_update(fd, bytes(44), bytes(64))


def test_a_map_of_no_tracker_says_how_to_load_one(tracker: Tracker) -> None:
    with pytest.raises(LoaderError, match=r"^no tracker is loaded \(.*conntrack_live is missing\)"):
        tracker.pins.open_map(LIVE)


# --- loading -------------------------------------------------------------------------------------


def facts_of(**values: str) -> Facts:
    probes = {"libbpf": "yes", "btf": "yes", **values}
    return Facts(
        kernel="6.1.0",
        arch="x86_64",
        lockdown=None,
        libbpf=None,
        btf=BtfFacts("kernel", "default"),
        modules={},
        symbols={},
        sysctl={},
        probes={name: Probe(value, f"seen of {name}") for name, value in probes.items()},
    )


def test_the_same_spec_again_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "gather", None)  # nothing may be probed
    monkeypatch.setattr(Tracker, "_reconcile_maps", lambda *_of: Reconciled(4, 2, 3))
    outcome = host.tracker.load(host.spec)
    assert (outcome.changed, outcome.record) == (False, host.record)
    assert telemetry.read(host.tracker.store) == []
    found = status.read(host.tracker.active, host.tracker.store).reconciled
    assert found is not None
    assert (found["why"], found["added"], found["removed"]) == ("load of the same spec", 4, 2)
    assert os.path.exists(host.tracker.active.reconciled_path)


def test_reconciling_that_fails_is_kept_with_the_result_and_the_same_spec_loads_all_the_same(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_of: object) -> Reconciled:
        raise LoaderError("it was not done in time")

    monkeypatch.setattr(Tracker, "_reconcile_maps", fail)
    with pytest.raises(LoaderError, match="not done in time"):
        host.tracker.reconcile("asked for")
    assert host.tracker.load(host.spec).changed is False
    found = status.read(host.tracker.active, host.tracker.store).reconciled
    assert found is not None
    assert (found["error"], found["runs"]) == ("it was not done in time", 2)


def test_a_tracker_that_is_not_as_loaded_is_not_reconciled(host: Host) -> None:
    os.unlink(host.tracker.pins.path("link_insert"))
    with pytest.raises(LoaderError, match="pin link_insert is missing: load it first"):
        host.tracker.reconcile("asked for")


def test_a_load_goes_on_from_the_last_pass_of_a_reconciliation(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "_reconcile_maps", lambda *_of: Reconciled(0, 0, 77))
    host.tracker.reconcile("asked for")
    verdict = Verdict(True, "core/kprobe", "pinned", {})
    request = host.tracker._request(host.spec, facts_of(), verdict, host.tracker.read())
    assert request.last_pass == 77


@pytest.mark.parametrize(
    ("values", "error", "message", "result"),
    [
        ({"libbpf": "no"}, LoaderError, "seen of libbpf", "loader"),
        ({"btf": "no"}, BtfNotFound, "seen of btf", "btf_not_found"),
        ({"hash_maps": "no"}, LoaderError, "this host cannot run the object: the kernel", "loader"),
    ],
)
def test_a_host_that_cannot_is_refused_counted_and_left_alone(
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, str],
    error: type[Exception],
    message: str,
    result: str,
) -> None:
    monkeypatch.setattr(load_module, "gather", lambda _path: facts_of(**values))
    with pytest.raises(error, match=f"^{message}") as caught:
        host.tracker.load(replace(host.spec, max_entries=4096))
    assert len(str(caught.value).splitlines()) == 1
    rows = telemetry.read(host.tracker.store)
    assert [(row["result"], row["count"]) for row in rows] == [(result, 1)]
    assert host.tracker.read() == Loaded(host.record, (), tuple(host.tracker.pins.names()))


def test_a_kernel_error_in_the_middle_is_one_line_and_counted(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str | None) -> Facts:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(load_module, "gather", refuse)
    with pytest.raises(
        LoaderError, match=r"refused a step of the load \(Cannot allocate memory\): "
    ):
        host.tracker.load(replace(host.spec, max_entries=4096))
    assert [row["result"] for row in telemetry.read(host.tracker.store)] == ["loader"]
    assert host.tracker.read().drift == ()


def test_a_half_made_set_is_taken_back_before_the_next_load(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracker_map() as other:
        bpf.obj_pin(other, host.tracker.pins.path(f"new_{LIVE}"))
    assert host.tracker.read().drift == (
        f"pin new_{LIVE} is what a load that was killed has left: load again",
    )
    monkeypatch.setattr(load_module, "gather", None)
    monkeypatch.setattr(Tracker, "_reconcile_maps", lambda *_of: Reconciled(0, 0, 3))
    assert host.tracker.load(host.spec).changed is False
    assert host.tracker.read().drift == ()


def test_without_bpffs_nothing_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    store = Store(str(tmp_path / "spec.json"), str(tmp_path / "var"))
    tracker = Tracker(store, str(tmp_path / "plain" / "btfleet"), str(tmp_path / "lock"))
    with pytest.raises(LoaderError, match=f"^no bpf file system at {tmp_path}/plain "):
        tracker.load(Spec("a" * 64))
    assert not (tmp_path / "plain" / "btfleet").exists()


def test_what_a_load_has_staged_is_no_drift_beside_it(host: Host) -> None:
    with tracker_map() as other:
        bpf.obj_pin(other, host.tracker.pins.path(f"new_{LIVE}"))
    with lock.held(host.tracker.lock_path):
        loaded = host.tracker.read()
        assert (loaded.drift, loaded.record) == ((), host.record)
        assert f"new_{LIVE}" not in loaded.pins


def test_pins_that_are_swapped_meanwhile_are_no_drift(host: Host) -> None:
    """Between two renames a load has pins of both sets in place."""
    with tracker_map() as other, lock.held(host.tracker.lock_path):
        host.repin(LIVE, other)
        mend = threading.Timer(0.3, lambda: host.repin(LIVE, host.maps[LIVE]))
        mend.start()
        assert host.tracker.read().drift == ()
        mend.join()


def test_a_second_loader_waits_for_the_first(host: Host) -> None:
    order: list[str] = []

    def second() -> None:
        host.tracker.load(host.spec)
        order.append("second")

    with lock.held(host.tracker.lock_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


# --- maps of the tracker so far ------------------------------------------------------------------


def request(host: Host, tier: str, **changed: Any) -> Request:
    """One to replace what is loaded."""
    spec, verdict = replace(host.spec, **changed), Verdict(True, tier, "pinned", {})
    return Request(spec, facts_of(), verdict, host.tracker.pins, host.record)


def test_maps_of_another_shape_are_not_taken_over(host: Host) -> None:
    with hash_map(44, 32, 2048) as other:
        host.repin(LIVE, other)
    with ExitStack() as stack:
        assert set(former_maps(request(host, "core/kprobe"), stack)) == {CLOSED, COUNTERS_MAP}


def test_maps_whose_pins_are_gone_are_found_by_their_ids(host: Host) -> None:
    os.unlink(host.tracker.pins.path(LIVE))
    with ExitStack() as stack:
        found = former_maps(request(host, "core/kprobe"), stack)
        assert bpf.map_info(found[LIVE]).id == host.record["maps"][LIVE]


@pytest.mark.parametrize(
    ("name", "changed", "fits"),
    [
        (LIVE, {}, True),
        (LIVE, {"max_entries": 4096}, False),
        (CLOSED, {"max_entries": 4096}, True),
        (CLOSED, {"closed_entries": 4096}, False),
        (COUNTERS_MAP, {"max_entries": 4096}, True),
    ],
)
def test_a_map_fits_if_the_spec_wants_its_size(
    host: Host, name: str, changed: dict[str, int], fits: bool
) -> None:
    wanted = request(host, "core/kprobe", **changed)
    assert (name in kept_maps(wanted, host.maps)) is fits


def test_a_new_map_of_closed_flows_needs_a_new_one_of_live_flows_too(host: Host) -> None:
    wanted = request(host, "core/kprobe", closed_entries=4096)
    assert kept_maps(wanted, host.maps) == {COUNTERS_MAP}
    # Nor does a process go on with the maps of programs
    assert kept_maps(request(host, "netlink"), host.maps) == set()


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_changed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(True, "core/kprobe", "pinned", {})
    monkeypatch.setattr(load_module, "_require", lambda *_arguments: verdict)
    monkeypatch.setattr(memory, "available_of", lambda _text: 10**9)
    before = host.tracker.read()
    huge = replace(host.spec, max_entries=16777216)
    host.tracker.check(host.spec)
    for attempt in (host.tracker.check, host.tracker.load):
        with pytest.raises(LoaderError, match=r"the maps need 29.. MB, there are 1000 MB"):
            attempt(huge)
    assert host.tracker.read() == before


# --- unloading -----------------------------------------------------------------------------------


def test_a_link_that_somebody_holds_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The links' descriptors are open here, so the kernel keeps them."""
    monkeypatch.setattr(time, "monotonic", iter(range(0, 1000, 5)).__next__)
    with pytest.raises(LoaderError, match="is still attached after 10 s: another process holds it"):
        host.tracker.unload()
    assert host.tracker.pins.names() == []


def test_modules_that_are_there_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "module_state", lambda _name: "builtin")
    monkeypatch.setattr(seed, "drain_dump", None)
    programs.load_modules()


def test_modules_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "module_state", lambda _name: "available")
    monkeypatch.setattr(seed, "drain_dump", lambda _portid: None)
    with pytest.raises(LoaderError, match="the kernel module nf_conntrack is there but not loaded"):
        programs.load_modules()


def test_a_kernel_that_does_not_answer_for_conntrack(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_portid: int) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(programs, "module_state", lambda _name: "available")
    monkeypatch.setattr(seed, "drain_dump", refuse)
    with pytest.raises(LoaderError, match=r"does not answer for conntrack \(Protocol not"):
        programs.load_modules()


def test_the_lock_is_forgotten_with_its_folder(tracker: Tracker, tmp_path: Path) -> None:
    tracker.forget_lock()
    with lock.held(tracker.lock_path):
        assert (tmp_path / "run" / "lock").exists()
    tracker.forget_lock()
    assert not (tmp_path / "run").exists()
