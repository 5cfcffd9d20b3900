# SPDX-License-Identifier: GPL-3.0-or-later
"""What the boot unit runs: it tells systemd when the tracker is in force, and only then."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest
from btfleet import load_command
from btfleet.kernel.errors import InvalidSpec, LoaderError
from btfleet.kernel.spec import Spec
from btfleet.kernel.tracker import Outcome, Tracker

SPEC = Spec("a" * 64)


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    path = tmp_path / "spec.json"
    path.write_text(SPEC.to_json())
    return argparse.Namespace(spec=str(path))


@pytest.fixture
def notified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(tmp_path / "notify"))
    sock.settimeout(5)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return sock


@pytest.mark.parametrize(("changed", "what"), [(True, "loaded"), (False, "already in force:")])
def test_a_load_is_said_and_notified(
    options: argparse.Namespace,
    notified: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: bool,
    what: str,
) -> None:
    loaded: list[Spec] = []

    def load(_tracker: Tracker, spec: Spec) -> Outcome:
        loaded.append(spec)
        return Outcome(changed, {"tier": "core/kprobe"})

    monkeypatch.setattr(Tracker, "load", load)
    assert load_command.run(options) == 0
    assert loaded == [SPEC]
    short = SPEC.fingerprint[:12]
    assert capsys.readouterr().out == f"{what} spec {short}, tier core/kprobe\n"
    with notified:
        assert notified.recv(4096).decode() == (f"READY=1\nSTATUS=spec {short}, tier core/kprobe")


def test_a_load_that_fails_is_not_notified(
    options: argparse.Namespace, notified: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_tracker: Tracker, _spec: Spec) -> Outcome:
        raise LoaderError("no")

    monkeypatch.setattr(Tracker, "load", load)
    with pytest.raises(LoaderError):
        load_command.run(options)
    notified.setblocking(False)
    with notified, pytest.raises(BlockingIOError):
        notified.recv(4096)


def test_a_missing_spec_says_what_installs_one(tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    with pytest.raises(InvalidSpec, match=f"^{path} is missing: install the object first"):
        load_command.run(argparse.Namespace(spec=path))


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
