# SPDX-License-Identifier: GPL-3.0-or-later
"""A switch does what is needed and no more; systemd is a fake that records."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    file_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    RECONCILE,
    TIMER,
    UNIT,
    Layout,
    ReleaseError,
    State,
)


class Systemd:
    """Keeps what was asked of it, and answers as a host would."""

    def __init__(self, units: str) -> None:
        self.calls: list[str] = []
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.failing: str | None = None
        self._units = units

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        assert command[0] == "systemctl"
        verb = command[1]
        if verb != "show":
            self.calls.append(" ".join(command[1:]))
        if verb == self.failing:
            return 1, "", "Failed to do it:\n  no bus\n"
        names = [word for word in command[2:] if not word.startswith("-")]
        if verb == "enable":
            self.enabled.update(names)
        elif verb == "start":
            self.active.update(names)
        elif verb == "disable":
            self.enabled.difference_update(names)
            self.active.difference_update(names)
        elif verb == "show":
            return 0, "\n".join(map(self._shown, names)), ""
        return 0, "", ""

    def _shown(self, name: str) -> str:
        state = "enabled" if name in self.enabled else "disabled"
        if not os.path.exists(os.path.join(self._units, name)):
            state = ""
        active = "active" if name in self.active else "inactive"
        return f"Id={name}\nUnitFileState={state}\nActiveState={active}\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "units").mkdir()
    return Layout(str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), str(tmp_path / "units"))


@pytest.fixture
def systemd(layout: Layout) -> Systemd:
    return Systemd(layout.units)


def put(layout: Layout, name: str, unit: str = "[Unit]\n", age: int = 0) -> None:
    """An unpacked release."""
    folder = Path(layout.folder(name))
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "btfleet").write_text(name)
    (folder / "units").mkdir()
    (folder / "units" / UNIT).write_text(unit)
    os.utime(folder, (1_000_000 - age, 1_000_000 - age))


def switch(layout: Layout, systemd: Systemd, name: str, keep: int = 2) -> bool:
    """What the module does; says whether there was anything to do."""
    now = release.read(layout, systemd)
    after = release.plan(now, name, keep, release.packed_units(layout, name))
    if now == after:
        return False
    release.reach(layout, systemd, now, after)
    assert release.read(layout, systemd) == after
    return True


def test_a_bare_host_has_nothing(layout: Layout, systemd: Systemd) -> None:
    assert release.read(layout, systemd) == State()


def test_the_first_release(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a")
    assert switch(layout, systemd, "1-a")
    assert systemd.calls == ["daemon-reload", f"enable --quiet {UNIT}", f"start {UNIT}"]
    assert os.readlink(layout.current) == "releases/1-a"
    assert Path(layout.command).read_text() == "1-a"
    unit = Path(layout.units, UNIT)
    assert unit.read_text() == "[Unit]\n"
    assert unit.stat().st_mode & 0o777 == 0o644


def test_a_release_with_a_timer_brings_it_along_and_one_without_takes_it_away(
    layout: Layout, systemd: Systemd
) -> None:
    put(layout, "1-a", age=10)
    for name in (TIMER, RECONCILE):
        Path(layout.folder("1-a"), "units", name).write_text(f"[Unit]\nDescription={name}\n")
    assert switch(layout, systemd, "1-a")
    for call in (f"enable --quiet {TIMER}", f"start {TIMER}"):
        assert call in systemd.calls
    assert f"start {RECONCILE}" not in systemd.calls
    assert sorted(os.listdir(layout.units)) == sorted(release.UNITS)
    assert not switch(layout, systemd, "1-a")
    Path(layout.units, RECONCILE).write_text("[Unit]\nDescription=mine\n")
    systemd.active.remove(TIMER)
    assert switch(layout, systemd, "1-a")
    assert Path(layout.units, RECONCILE).read_text().endswith(f"{RECONCILE}\n")
    assert TIMER in systemd.active
    put(layout, "2-b")
    assert switch(layout, systemd, "2-b")
    assert os.listdir(layout.units) == [UNIT]
    assert systemd.active == {UNIT}
    assert not switch(layout, systemd, "2-b")


def test_the_same_release_again_does_nothing(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    systemd.calls.clear()
    assert not switch(layout, systemd, "1-a")
    assert systemd.calls == []


def test_the_next_release_switches_one_link(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a", age=10)
    switch(layout, systemd, "1-a")
    systemd.calls.clear()
    put(layout, "2-b")
    assert switch(layout, systemd, "2-b")
    assert systemd.calls == []
    assert Path(layout.command).read_text() == "2-b"
    assert not switch(layout, systemd, "2-b")


def test_going_back_and_forth_is_done_once_each(layout: Layout, systemd: Systemd) -> None:
    for age, name in enumerate(["3-c", "10-d", "2-b"]):
        put(layout, name, age=age)
    for name in ("2-b", "10-d", "3-c", "2-b"):
        assert switch(layout, systemd, name)
        assert not switch(layout, systemd, name)
    assert sorted(os.listdir(layout.releases)) == ["10-d", "2-b", "3-c"]


def test_another_unit_is_put_in_place_and_read(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a", age=10)
    switch(layout, systemd, "1-a")
    systemd.calls.clear()
    put(layout, "2-b", unit="[Unit]\nDescription=new\n")
    switch(layout, systemd, "2-b")
    assert systemd.calls == ["daemon-reload"]
    assert "new" in Path(layout.units, UNIT).read_text()


@pytest.mark.parametrize("damage", ["unit", "command", "current", "disabled", "stopped"])
def test_what_somebody_changed_is_put_right(layout: Layout, systemd: Systemd, damage: str) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    if damage == "unit":
        Path(layout.units, UNIT).write_text("[Unit]\nDescription=mine\n")
    elif damage == "command":
        os.unlink(layout.command)
    elif damage == "current":
        os.unlink(layout.current)
    elif damage == "disabled":
        systemd.enabled.clear()
    else:
        systemd.active.clear()
    assert switch(layout, systemd, "1-a")
    assert not switch(layout, systemd, "1-a")


@pytest.mark.parametrize(
    ("keep", "left"), [(2, ["2-b", "3-c", "4-d"]), (1, ["3-c", "4-d"]), (0, ["4-d"])]
)
def test_only_so_many_former_releases_are_kept(
    layout: Layout, systemd: Systemd, keep: int, left: list[str]
) -> None:
    for age, name in ((30, "1-a"), (20, "2-b"), (10, "3-c")):
        put(layout, name, age=age)
        switch(layout, systemd, name)
    put(layout, "4-d")
    switch(layout, systemd, "4-d", keep)
    assert sorted(os.listdir(layout.releases)) == left


def test_releases_are_listed_newest_first_and_half_unpacked_ones_not_at_all(
    layout: Layout, systemd: Systemd
) -> None:
    for age, name in ((1, "9-new"), (3, "1-old"), (2, "5-mid")):
        put(layout, name, age=age)
    os.mkdir(os.path.join(layout.releases, ".unpack-abc"))
    assert release.read(layout, systemd).releases == ("9-new", "5-mid", "1-old")


def test_a_link_to_nothing_is_no_current_release(layout: Layout, systemd: Systemd) -> None:
    os.makedirs(layout.root)
    os.symlink("releases/gone", layout.current)
    assert release.read(layout, systemd).current is None


def test_a_foreign_command_is_not_ours(layout: Layout, systemd: Systemd) -> None:
    os.makedirs(os.path.dirname(layout.command))
    os.symlink("/opt/other/btfleet", layout.command)
    assert release.read(layout, systemd).command is False


def _mount(monkeypatch: pytest.MonkeyPatch, *, read_only: str) -> None:
    """As if the folder lay on a file system that is mounted read-only."""
    real = os.statvfs

    def statvfs(folder: str) -> object:
        flags = os.ST_RDONLY if folder.startswith(read_only) else 0
        return SimpleNamespace(f_flag=real(folder).f_flag | flags)

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_a_read_only_system_goes_without_the_link(
    layout: Layout, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.path.dirname(layout.command)
    os.mkdir(folder)
    _mount(monkeypatch, read_only=folder)
    put(layout, "1-a")
    assert switch(layout, systemd, "1-a")
    assert not switch(layout, systemd, "1-a")
    assert os.listdir(folder) == []
    state, target = release.read(layout, systemd), f"{layout.current}/bin/btfleet"
    assert (state.current, state.unit_active, state.command) == ("1-a", True, False)
    assert release.warnings(layout, state) == [
        f"{folder} is on a read-only file system, so the command is {target} alone"
    ]
    after = release.plan_removal(state, in_use=False)
    release.remove(layout, systemd, state, after)
    assert release.read(layout, systemd) == after
    assert release.plan_removal(after, in_use=False) == after


def test_a_link_from_before_a_system_became_read_only_is_kept_and_used(
    layout: Layout, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    _mount(monkeypatch, read_only=os.path.dirname(layout.command))
    put(layout, "2-b")
    assert switch(layout, systemd, "2-b")
    state = release.read(layout, systemd)
    assert state.command
    assert release.warnings(layout, state) == []
    systemd.calls.clear()
    with pytest.raises(ReleaseError, match="mount it writable to have it removed"):
        release.remove(layout, systemd, state, release.plan_removal(state, in_use=False))
    assert release.read(layout, systemd) == state
    assert systemd.calls == []


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "start"])
def test_a_failing_systemctl_is_one_line(layout: Layout, systemd: Systemd, verb: str) -> None:
    put(layout, "1-a")
    systemd.failing = verb
    with pytest.raises(HostError) as caught:
        switch(layout, systemd, "1-a")
    message = str(caught.value)
    assert message.startswith(f"systemctl {verb}")
    assert "failed (Failed to do it: no bus)" in message
    assert len(message.splitlines()) == 1


def test_a_host_without_systemd_is_named(layout: Layout) -> None:
    with pytest.raises(HostError, match=r"exit code 127.*systemd is needed"):
        release.read(layout, lambda _command: (127, "", ""))


# --- removal -------------------------------------------------------------------------------------


def test_removal_leaves_nothing(layout: Layout, systemd: Systemd, tmp_path: Path) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    systemd.calls.clear()
    release.remove(layout, systemd, release.read(layout, systemd), State())
    assert systemd.calls == [
        f"disable --now --quiet {UNIT}",
        "daemon-reload",
        f"reset-failed {UNIT}",
    ]
    assert release.read(layout, systemd) == State()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bin", "units"]


def test_removal_does_not_mind_a_unit_that_never_failed(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    systemd.failing = "reset-failed"
    release.remove(layout, systemd, release.read(layout, systemd), State())
    assert release.read(layout, systemd) == State()


def test_removal_without_a_unit_asks_nothing_of_systemd(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a")
    release.remove(layout, systemd, release.read(layout, systemd), State())
    assert systemd.calls == []
    assert not os.path.exists(layout.root)


def test_removal_leaves_a_command_that_is_not_ours(layout: Layout, systemd: Systemd) -> None:
    put(layout, "1-a")
    switch(layout, systemd, "1-a")
    os.unlink(layout.command)
    os.symlink("/opt/other/btfleet", layout.command)
    release.remove(layout, systemd, release.read(layout, systemd), State())
    assert os.readlink(layout.command) == "/opt/other/btfleet"


# --- links ---------------------------------------------------------------------------------------


def test_a_link_is_made_and_redirected_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "folder" / "link"
    release.link_atomically("one", str(link))
    seen: list[str] = []
    real = os.replace

    def watched(source: str, target: str) -> None:
        seen.append(os.readlink(target))
        real(source, target)
        seen.append(os.readlink(target))

    monkeypatch.setattr(os, "replace", watched)
    release.link_atomically("two", str(link))
    assert seen == ["one", "two"]
    assert os.listdir(link.parent) == ["link"]


def test_a_link_that_a_killed_run_left_half_made_does_not_stop_the_next(tmp_path: Path) -> None:
    link = tmp_path / "link"
    os.symlink("half", f"{link}.btfleet-new")
    release.link_atomically("one", str(link))
    assert os.readlink(link) == "one"
    assert os.listdir(tmp_path) == ["link"]


def test_a_digest_of_a_file(tmp_path: Path) -> None:
    assert file_digest(str(tmp_path / "none")) is None
    (tmp_path / "file").write_bytes(b"content")
    assert file_digest(str(tmp_path / "file")) == hashlib.sha256(b"content").hexdigest()


def test_the_state_compares_every_part() -> None:
    full = State(("1",), "1", True, "digest", True, True)
    for change in (
        {"releases": ()},
        {"current": None},
        {"command": False},
        {"unit": None},
        {"unit_enabled": False},
        {"unit_active": False},
    ):
        assert replace(full, **change) != full
