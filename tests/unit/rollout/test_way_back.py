# SPDX-License-Identifier: GPL-3.0-or-later
"""From any state to a recorded one; what is right already is left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import manage
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    file_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import present, way_back
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.points import RestorePoint
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.present import Host

from tests.unit.kernel_access import needs_root
from tests.unit.release.fake_host import FakeHost
from tests.unit.rollout.conftest import Put

pytestmark = needs_root

NOTHING = RestorePoint()
FILES = {
    "agent.json": b'{"host": "edge1", "service": "config:8443"}\n',
    "token": b"the-token-0123456789\n",
    "ca.pem": b"CA\n",
    "director-root.json": b"{}\n",
}


def switch(host: Host, name: str) -> None:
    """What the module release does."""
    now = release.read(host.releases, host.run)
    units = release.packed_units(host.releases, name)
    release.reach(host.releases, host.run, now, release.plan(now, name, 5, units))


def install_agent(host: Host, name: str, files: dict[str, bytes]) -> None:
    """What the module poller_agent does."""
    switch(host, name)
    before = poller_agent.read(host.agent, host.run)
    units = {
        unit: file_digest(release.packed_unit(host.releases, name, unit))
        for unit in poller_agent.UNITS
    }
    after = poller_agent.plan(before, files, units)
    poller_agent.reach(
        host.agent, host.releases, host.run, before, after, files, name, restart=True
    )


def install_object(host: Host, content: bytes, entries: int) -> Spec:
    """What the module conntrack_object does with state installed."""
    digest = host.tracker.store.write_object(content)
    spec = Spec(digest, max_entries=entries)
    manage.reach(host.tracker, "installed", manage.Wish.of(host.tracker, spec), content)
    return spec


def now(host: Host) -> RestorePoint:
    return present.as_point(host, present.read(host), 0)


def back(host: Host, point: RestorePoint) -> list[str]:
    return [step.part for step in way_back.reach(host, point, frozenset(), dry=False)]


def everything(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


def test_a_bare_host_is_nothing_and_stays_so(host: Host, fake: FakeHost) -> None:
    assert now(host).is_nothing
    assert back(host, NOTHING) == []
    assert fake.calls == []


def test_a_release_is_switched_back_with_its_unit(host: Host, put: Put) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    point = now(host)
    assert (point.release, point.boot) == ("1-a", True)
    switch(host, "2-b")
    assert back(host, point) == ["release"]
    assert now(host) == point
    unit = Path(host.releases.units, release.UNIT).read_text()
    assert unit.endswith("# 1-a\n")
    assert back(host, point) == []


def test_what_failed_stays_unpacked_for_another_try(host: Host, put: Put) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    point = now(host)
    switch(host, "2-b")
    back(host, point)
    assert present.read(host).release.releases == ("2-b", "1-a")


def test_spec_and_object_come_back(host: Host, own_object: bytes) -> None:
    install_object(host, own_object, 4096)
    point = now(host)
    assert point.tracker is not None
    assert not point.tracker.loaded
    install_object(host, own_object, 8192)
    assert back(host, point) == ["tracker"]
    assert now(host) == point
    assert back(host, point) == []


def test_agent_files_come_back_and_the_agent_is_restarted(
    host: Host, fake: FakeHost, put: Put
) -> None:
    put("1-a")
    put("2-b")
    install_agent(host, "1-a", FILES)
    point = now(host)
    install_agent(host, "2-b", {**FILES, "token": b"another-0123456789\n", "agent.json": b"{}\n"})
    fake.calls.clear()
    assert back(host, point) == ["release", "agent"]
    assert now(host) == point
    assert Path(host.agent.etc, "token").read_bytes() == FILES["token"]
    assert os.stat(os.path.join(host.agent.etc, "token")).st_mode & 0o777 == 0o640
    assert "systemctl restart btfleet-agent.service" in fake.calls
    assert not os.path.lexists(host.agent.restart_due)


def test_an_agent_that_had_died_is_started(host: Host, fake: FakeHost, put: Put) -> None:
    put("1-a")
    install_agent(host, "1-a", FILES)
    point = now(host)
    fake.active.remove("btfleet-agent.service")
    assert back(host, point) == ["agent"]
    assert "btfleet-agent.service" in fake.active


def test_an_agent_that_was_not_there_goes_before_its_release(
    host: Host, fake: FakeHost, put: Put
) -> None:
    put("1-a")
    put("2-b")
    switch(host, "1-a")
    point = now(host)
    install_agent(host, "2-b", FILES)
    assert back(host, point) == ["agent", "release"]
    assert now(host) == point
    assert not fake.users.keys() & {"btfleet"}
    assert sorted(os.listdir(host.agent.units)) == [release.UNIT]


def test_where_nothing_was_nothing_is_left(
    host: Host, put: Put, own_object: bytes, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    put("1-a")
    install_object(host, own_object, 4096)
    install_agent(host, "1-a", FILES)
    assert back(host, NOTHING) == ["agent", "tracker", "release"]
    left = everything(tmp_path).keys() - before.keys()
    assert left <= {"bin", "run/lock"}
    assert now(host).is_nothing


def test_a_boot_unit_that_was_not_there_goes(host: Host, put: Put) -> None:
    put("1-a")
    put("2-b")
    os.makedirs(os.path.dirname(host.releases.current), exist_ok=True)
    release.link_atomically("releases/1-a", host.releases.current)
    point = now(host)
    assert (point.release, point.boot) == ("1-a", False)
    switch(host, "2-b")
    back(host, point)
    assert os.listdir(host.releases.units) == []
    assert now(host) == point


def test_the_release_that_the_config_service_runs_on_stays(host: Host, put: Put) -> None:
    put("1-a")
    switch(host, "1-a")
    Path(host.releases.units, "btfleet-config-service.service").write_text("")
    assert back(host, NOTHING) == ["release"]
    assert now(host).release == "1-a"


def test_a_dry_run_says_it_and_does_nothing(
    host: Host, fake: FakeHost, put: Put, own_object: bytes, tmp_path: Path
) -> None:
    put("1-a")
    install_object(host, own_object, 4096)
    install_agent(host, "1-a", FILES)
    before = everything(tmp_path)
    fake.calls.clear()
    steps = way_back.reach(host, NOTHING, frozenset(), dry=True)
    assert [step.part for step in steps] == ["agent", "tracker", "release"]
    assert "the-token" not in str(steps)
    assert (everything(tmp_path), fake.calls) == (before, [])


def test_what_is_missing_is_said_before_anything_is_changed(
    host: Host, put: Put, own_object: bytes, tmp_path: Path
) -> None:
    put("1-a")
    switch(host, "1-a")
    install_object(host, own_object, 4096)
    point = now(host)
    before = everything(tmp_path)
    for wrong, message in (
        (RestorePoint("0-x"), "the release 0-x is no more on the host: roll it out again"),
        (RestorePoint(agent={}), "the restore point has a poller agent, but no release to run it"),
    ):
        with pytest.raises(HostError, match=message):
            back(host, wrong)
    assert everything(tmp_path) == before
    host.tracker.store.prune(set())
    with pytest.raises(HostError, match=r"^the object [0-9a-f]{12} is no more on the host"):
        back(host, point)


def test_objects_that_other_points_need_stay(host: Host, own_object: bytes) -> None:
    install_object(host, own_object, 4096)
    other = b"x" * 64
    digest = host.tracker.store.write_object(other)
    point = now(host)
    install_object(host, own_object, 8192)
    host.tracker.store.write_object(other)
    way_back.reach(host, point, frozenset({digest}), dry=False)
    assert host.tracker.store.has_object(digest)


# --- what may be returned to ---------------------------------------------------------------------


def test_a_host_without_systemd_has_neither_units_nor_agent(host: Host, fake: FakeHost) -> None:
    fake.failing = "systemctl"
    assert present.as_point(host, present.read(host._replace(has_systemd=False)), 0).is_nothing


def test_a_state_that_does_not_work_is_none_to_return_to(
    host: Host, fake: FakeHost, put: Put, own_object: bytes
) -> None:
    put("1-a")
    install_object(host, own_object, 4096)
    install_agent(host, "1-a", FILES)
    assert present.why_unfit(present.read(host)) is None
    fake.active.clear()
    assert present.why_unfit(present.read(host)) == "btfleet-agent.service does not run"
    os.unlink(host.agent.file("token"))
    assert present.why_unfit(present.read(host)) == "the poller agent has no token"
    host.tracker.store.prune(set())
    assert "object of the spec file is missing" in str(present.why_unfit(present.read(host)))
    drifted = present.read(host)
    drifted = drifted._replace(tracker=manage.State(drift=("pin x is missing",)))
    assert "pin x is missing" in str(present.why_unfit(drifted))
    drifted = drifted._replace(tracker=manage.State(loaded={}))
    assert "spec file is missing or damaged" in str(present.why_unfit(drifted))
