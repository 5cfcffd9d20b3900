# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent as a process: started by systemd's protocol, told to end, killed, out of room."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.kill_rounds import KILL_ROUNDS, KILL_TIMEOUT
from tests.unit.poller.conftest import Deployed, eventually


def environment(checkout: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{checkout}:{checkout / 'agent'}", **more}


def test_a_poll_that_is_killed_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, checkout: Path
) -> None:
    words = ["-m", "tests.unit.poller.killed_polls", str(tmp_path), str(KILL_ROUNDS), "11"]
    done = subprocess.run(
        [sys.executable, *words],
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
        timeout=KILL_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    kills = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(kills) == KILL_ROUNDS
    outcomes = {after == begun for _before, begun, after in kills}
    assert outcomes == {True, False}, "all were killed too early, or all too late"


@contextmanager
def started(
    deployed: Deployed, checkout: Path, **settings: object
) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """`btfleet agent` under what systemd gives it."""
    path = deployed.folder / "etc/agent.json"
    ours = {**vars(deployed.settings), "groups": ["edge"], "products": ["CONNTRACK", "AGENT"]}
    path.write_text(json.dumps({**ours, **settings}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(deployed.folder / "notify"))
        notices.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-m", "btfleet", "agent", "--settings", str(path)],
            env=environment(checkout, NOTIFY_SOCKET=str(deployed.folder / "notify")),
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, notices
        finally:
            process.kill()
            process.communicate()
            (deployed.folder / "notify").unlink()


def test_it_says_ready_and_alive_and_ends_at_once_when_told(host: Deployed, checkout: Path) -> None:
    with started(host, checkout) as (process, notices):
        assert notices.recv(1000).startswith(b"READY=1\nSTATUS=polling localhost:")
        assert notices.recv(1000) == b"WATCHDOG=1"
        eventually(lambda: host.service.requests, "a poll")
        mode = os.stat(host.folder / "state/state.db").st_mode & 0o777
        assert mode == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        assert not os.path.exists(host.settings.socket)


def test_it_starts_again_after_a_kill_with_a_socket_left_behind(
    host: Deployed, checkout: Path
) -> None:
    for _number in range(2):
        with started(host, checkout) as (process, notices):
            assert notices.recv(1000).startswith(b"READY=1")
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
            assert os.path.exists(host.settings.socket)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"host": 1}, "host is 1, needed: the host's name"),
        ({"socket": "/nowhere/agent.sock"}, "cannot listen on /nowhere/agent.sock"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    host: Deployed, checkout: Path, settings: dict[str, object], line: str
) -> None:
    with started(host, checkout, **settings) as (process, _notices):
        assert process.wait(60) == 3
        assert process.stderr is not None
        text = process.stderr.read()
        assert text.startswith("btfleet: ")
        assert line in text
        assert text.count("\n") == 1


_NO_ROOM = """
import resource, signal, sys
from btfleet.poller import verify
from btfleet.poller.errors import StorageError
from btfleet.poller.repository import StateRepository
from tests.unit.poller.director import HOST, NOW, Director
director = Director()
repository = StateRepository(sys.argv[1])
small = verify.update(verify.start(director.first_root), director.answer(), HOST, NOW)
repository.commit(small, HOST.digest)
before = repository.load()
director.publish({f"btfleet/1/AGENT/a/{n}": b"{}" + b" " * 50000 for n in range(20)})
large = verify.update(small, director.answer(), HOST, NOW)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200000, limits[1]))
for _number in range(3):
    try:
        repository.commit(large, HOST.digest)
    except StorageError as exc:
        print(exc)
    else:
        sys.exit("there was room")
    assert repository.load() == before
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
repository.commit(large, HOST.digest)
repository.close()
again = verify.restore(director.first_root, StateRepository(sys.argv[1]).load(), HOST)
assert again.configs == large.configs
"""


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY, reason="a limit is set"
)
def test_a_file_system_without_room_keeps_the_old_state_until_there_is(
    tmp_path: Path, checkout: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NO_ROOM, str(tmp_path)],
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cannot keep or read the state") == 3
