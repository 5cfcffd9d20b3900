# SPDX-License-Identifier: GPL-3.0-or-later
"""What the units run: it tells systemd when the tracker is in force, and only then."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet import load_command
from btfleet._config import remote
from btfleet._config.remote import WantedRefused
from btfleet._kernel.errors import InvalidSpec, LoaderError, LoadUnfinished
from btfleet._kernel.loader.load import Outcome, Tracker
from btfleet._kernel.loader.state import Loaded
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store

SPEC = Spec("a" * 64)
OVERRIDDEN = replace(SPEC, udpv6_enabled=False)
NAMED = argparse.Namespace(spec=None, hold=False)
SETTINGS = {"udpv6_enabled": False}
OWNERS = {"udpv6_enabled": "btfleet/1/CONNTRACK/edge/no-udp6"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The files of a host with a base; its tracker is found by the command."""
    store = Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    store.write_spec(SPEC)
    monkeypatch.setattr(
        load_command,
        "Tracker",
        lambda stays: Tracker(store, str(tmp_path / "bpf" / "btfleet"), stays=stays),
    )
    return store


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Spec]:
    """What the kernel was given, by a load that does nothing else."""
    specs: list[Spec] = []

    def load(_tracker: Tracker, spec: Spec) -> Outcome:
        changed = specs[-1:] != [spec]
        specs.append(spec)
        return Outcome(changed, {"tier": "core/kprobe", "fingerprint": spec.fingerprint})

    monkeypatch.setattr(Tracker, "load", load)
    return specs


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def want(store: Store) -> None:
    wanted = {
        "request": remote.request_of(SETTINGS, OWNERS),
        "settings": SETTINGS,
        "owners": OWNERS,
    }
    Path(store.wanted_path).write_text(json.dumps(wanted))


def said(spec: Spec, what: str = "loaded") -> str:
    return f"{what} spec {spec.fingerprint[:12]}, tier core/kprobe\n"


@pytest.mark.usefixtures("store")
def test_a_load_is_said_and_notified(
    loaded: list[Spec], notified: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_command.run(NAMED) == 0
    assert loaded == [SPEC]
    assert capsys.readouterr().out == said(SPEC)
    state = f"READY=1\nSTATUS=spec {SPEC.fingerprint[:12]}, tier core/kprobe"
    assert notified.recv(4096).decode() == state
    assert load_command.run(NAMED) == 0
    assert capsys.readouterr().out == said(SPEC, "already in force:")
    assert notified.recv(4096).decode() == state


@pytest.mark.usefixtures("store")
def test_what_is_active_with_a_problem_is_kept_by_the_unit_and_told(
    monkeypatch: pytest.MonkeyPatch, notified: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or its end would leave the host without a tracker."""
    kept: list[str] = []

    def load(_tracker: Tracker, spec: Spec) -> Outcome:
        record: dict[str, object] = {"tier": "core/kprobe", "lifecycle": "held"}
        record["fingerprint"] = spec.fingerprint
        raise LoadUnfinished("a link is still there", record)

    class Held:
        def wait(self) -> None:
            kept.append("links")

    monkeypatch.setattr(Tracker, "load", load)
    monkeypatch.setattr(Tracker, "hold_links", lambda _tracker: Held())
    assert load_command.run(argparse.Namespace(spec=None, hold=True)) == 0
    assert capsys.readouterr().err == "btfleet: a link is still there\n"
    assert notified.recv(4096).startswith(b"READY=1")
    assert kept == ["links"]
    with pytest.raises(LoadUnfinished):
        load_command.run(NAMED)


def test_what_remote_config_wants_is_loaded_over_the_spec(
    store: Store, loaded: list[Spec], capsys: pytest.CaptureFixture[str]
) -> None:
    remote.write_allowed(store, ["CONNTRACK.udpv6_enabled"])
    want(store)
    assert load_command.run(NAMED) == 0
    assert loaded == [OVERRIDDEN]
    assert capsys.readouterr().out == said(OVERRIDDEN)
    answer = remote.read_answer(store)
    assert answer is not None
    assert answer.fingerprint == OVERRIDDEN.fingerprint


def test_at_boot_a_refused_request_is_said_and_the_base_is_loaded(
    store: Store, loaded: list[Spec], capsys: pytest.CaptureFixture[str], notified: socket.socket
) -> None:
    want(store)
    assert load_command.run(NAMED) == 0
    assert loaded == [SPEC]
    said_now = capsys.readouterr()
    assert said_now.out == said(SPEC)
    assert said_now.err.startswith("btfleet: what remote config wants is not in force (")
    assert len(said_now.err.splitlines()) == 1
    assert notified.recv(4096).startswith(b"READY=1")


def test_where_a_tracker_runs_a_refused_request_fails_and_loads_nothing(
    store: Store, loaded: list[Spec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "read", lambda _tracker: Loaded({"fingerprint": "x"}))
    want(store)
    with pytest.raises(WantedRefused, match="the tracker that ran before keeps running"):
        load_command.run(NAMED)
    assert loaded == []


def test_a_file_that_is_named_is_loaded_as_it_is(
    store: Store, loaded: list[Spec], tmp_path: Path
) -> None:
    remote.write_allowed(store, ["CONNTRACK.udpv6_enabled"])
    want(store)
    other = tmp_path / "other.json"
    other.write_text(replace(SPEC, max_entries=2048).to_json())
    assert load_command.run(argparse.Namespace(spec=str(other), hold=False)) == 0
    assert loaded == [replace(SPEC, max_entries=2048)]
    assert remote.read_answer(store) is None


@pytest.mark.usefixtures("store")
def test_a_load_that_fails_is_not_notified(
    notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_tracker: Tracker, _spec: Spec) -> Outcome:
        raise LoaderError("no")

    monkeypatch.setattr(Tracker, "load", load)
    with pytest.raises(LoaderError):
        load_command.run(NAMED)
    notified.setblocking(False)
    with pytest.raises(BlockingIOError):
        notified.recv(4096)


def test_a_missing_spec_says_what_installs_one(store: Store, tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    with pytest.raises(InvalidSpec, match=f"^{path} is missing: install the object first"):
        load_command.run(argparse.Namespace(spec=path, hold=False))
    Path(store.spec_path).unlink()
    with pytest.raises(InvalidSpec, match="is missing: install the object first"):
        load_command.run(NAMED)


@pytest.mark.parametrize(("hold", "expected"), [(True, 1), (False, 0)])
@pytest.mark.usefixtures("store")
def test_the_boot_unit_stays_to_follow_events(
    hold: bool, expected: int, monkeypatch: pytest.MonkeyPatch, notified: socket.socket
) -> None:
    waited = []

    class Follower:
        def wait(self) -> None:
            waited.append(notified.recv(4096)[:7])

    record: dict[str, object] = {"tier": "netlink", "fingerprint": SPEC.fingerprint}
    monkeypatch.setattr(Tracker, "load", lambda _tracker, _spec: Outcome(True, record))
    monkeypatch.setattr(Tracker, "follow", lambda _tracker: Follower())
    assert load_command.run(argparse.Namespace(spec=None, hold=hold)) == 0
    assert waited == [b"READY=1"] * expected


def test_an_abstract_socket_is_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # autobind: an abstract name
        sock.settimeout(5)
        name = sock.getsockname()
        assert name[:1] == b"\0"
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
        load_command.notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_without_systemd_nothing_is_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    load_command.notify("READY=1")
