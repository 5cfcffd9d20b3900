# SPDX-License-Identifier: GPL-3.0-or-later
"""The service as a process: killed, started, told to end, told to refresh."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from btfleet.cli import main
from btfleet.service.settings import Settings

from tests.unit.kill_rounds import KILL_ROUNDS, KILL_TIMEOUT
from tests.unit.service.certificates import Authority
from tests.unit.service.simulator import Simulator, path_of


def environment(checkout: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{checkout}:{checkout / 'agent'}", **more}


def test_a_refresh_that_is_killed_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, checkout: Path
) -> None:
    words = ["-m", "tests.unit.service.killed_refreshes", str(tmp_path), str(KILL_ROUNDS), "7"]
    done = subprocess.run(
        [sys.executable, *words],
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
        timeout=KILL_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    *kills, end = [line.split() for line in done.stdout.splitlines()]
    assert len(kills) == KILL_ROUNDS
    outcomes = set()
    for published, before, after in kills:
        assert after in (before, published)
        outcomes.add(after == published)
    assert outcomes == {True, False}, "all were killed too early, or all too late"
    assert end == ["end", str(KILL_ROUNDS + 2)]


@pytest.fixture
def settings_file(settings: Settings, tmp_path: Path) -> Path:
    Authority().write(Path(settings.tls.certificate), Path(settings.tls.key))
    Path(settings.tokens).write_text("{}")
    tls = {"certificate": settings.tls.certificate, "key": settings.tls.key}
    data = {**vars(settings), "roots": settings.roots._asdict(), "tls": tls}
    path = tmp_path / "service.json"
    path.write_text(json.dumps(data))
    return path


def test_check_says_that_all_is_well_and_serves_nothing(
    settings_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config-service", "--check", "--settings", str(settings_file)]) == 0
    assert capsys.readouterr().out == f"{settings_file}: all is as it should be\n"


def test_what_is_wrong_is_one_line_and_exit_code_three(
    settings_file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(settings.tokens).write_text('{"hosts": 1}')
    assert main(["config-service", "--settings", str(settings_file)]) == 3
    assert capsys.readouterr().err == (
        f"btfleet: {settings.tokens}: hosts is no object, needed: names and their hashes\n"
    )


def test_it_tells_systemd_refreshes_on_sighup_and_ends_on_sigterm(
    settings_file: Path, simulator: Simulator, checkout: Path, tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-m", "btfleet", "config-service", "--settings", str(settings_file)],
            env=environment(checkout, NOTIFY_SOCKET=address),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert systemd.recv(1000).startswith(b"READY=1\n")
            assert process.stderr
            assert "serving targets version 1: 1 configs" in process.stderr.readline()
            simulator.put(path_of("second"), {})
            simulator.publish()
            process.send_signal(signal.SIGHUP)
            assert "serving targets version 2: 2 configs" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(1000) == b"STOPPING=1"
            assert process.wait(60) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
            process.communicate()


def test_the_unit_is_hardened(checkout: Path) -> None:
    unit = (checkout / "agent/units/btfleet-config-service.service").read_text()
    for line in (
        "Type=notify",
        "User=btfleet-config",
        "StateDirectory=btfleet-config-service",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
    ):
        assert line in unit.splitlines()
