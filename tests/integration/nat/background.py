# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes that go on after the command has returned."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from . import netns, state
from .errors import NatError

Ready = Callable[[], None]
PIDS = "pids"
READY = b"ready"


def start(name: str, work: Callable[[Ready], None]) -> None:
    """Fork, and return when the work calls `ready`; its error is raised here."""
    wait(launch(name, work), name)


def launch(name: str, work: Callable[[Ready], None]) -> int:
    """Fork; the result is for `wait`."""
    if name in running():
        raise NatError(f"{name} is running already")
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(name, work, writer)
    os.close(writer)
    pids = state.load(PIDS, {})
    pids[name] = [pid, _started(pid)]
    state.save(PIDS, pids)
    return reader


def wait(reader: int, name: str) -> None:
    """Until the process is ready or has failed."""
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read(len(READY))
        if answer != READY:
            reason = (answer + pipe.read()).decode() or "it ended without a word"
            raise NatError(f"{name}: {reason}")


def _child(name: str, work: Callable[[Ready], None], writer: int) -> None:
    code = 0
    try:
        os.setsid()
        _detach(state.FOLDER / f"{name}.log")
        work(lambda: _say(writer, READY))
    except NatError as error:
        _say(writer, str(error).encode())
        code = 1
    except BaseException as error:  # noqa: BLE001 # nothing may get past the end of this process
        traceback.print_exc()
        _say(writer, f"{type(error).__name__}: {error}".encode())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(writer: int, word: bytes) -> None:
    try:
        os.write(writer, word)
        os.close(writer)
    except OSError:
        pass  # ready was said before


def _detach(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _started(pid: int) -> str:
    """The start time, so that a later process with the same number is not taken for it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def running() -> dict[str, int]:
    """Our processes that are alive."""
    pids: dict[str, list[object]] = state.load(PIDS, {})
    return {
        name: int(str(pid))
        for name, (pid, started) in pids.items()
        if started and _started(int(str(pid))) == started
    }


def stop(name: str, seconds: float = 20.0) -> None:
    """Ask the process to end and wait for it; nothing if it is not there."""
    pid = running().get(name)
    if pid is not None:
        descriptor = os.pidfd_open(pid)
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], seconds)[0]:
                break
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):  # started by an earlier command
            os.waitpid(pid, os.WNOHANG)
    pids = state.load(PIDS, {})
    if pids.pop(name, None) is not None:
        state.save(PIDS, pids)


def await_end(name: str, seconds: float) -> bool:
    """True when the process has ended by itself."""
    pid = running().get(name)
    if pid is None:
        return True
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def stop_all() -> None:
    """End everything that was started."""
    for name in list(state.load(PIDS, {})):
        stop(name)


def until_told() -> None:
    """Keep the process and its sockets until SIGTERM."""
    netns.enter(netns.ROOT)
    signal.sigwait({signal.SIGTERM})


def block_term() -> None:
    """Let SIGTERM wait for `until_told`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
