# SPDX-License-Identifier: GPL-3.0-or-later
"""Running other programs, with root rights where needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

# How often a long step says how far it is
PROGRESS_SECONDS = 10


def as_root(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """The command with these variables set, run through sudo unless we are root."""
    assignments = [f"{name}={value}" for name, value in (environment or {}).items()]
    full = ["env", *assignments, *command] if assignments else list(command)
    if os.geteuid() == 0:
        return full
    if shutil.which("sudo") is None:
        raise LabError(
            f"{command_name(command)} needs root, but this is uid {os.geteuid()}"
            " and sudo is missing: run as root"
        )
    return ["sudo", *full]


def environment() -> dict[str, str]:
    """This process's variables, with the folders of administration tools on PATH.

    An ordinary user of Debian, and who became root by `su`, has them not, and QEMU, debootstrap and
    mke2fs lie there.
    """
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def run(command: Sequence[str]) -> str:
    """Run to the end and return stdout.

    A failure becomes one line: the program's name and what it said last.
    """
    require(command[0])
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode != 0:
        raise _failure(command_name(command), done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_visibly(command: Sequence[str]) -> None:
    """Run to the end a command that tells its own progress on stderr."""
    require(command[0])
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, env=environment())
    if done.returncode != 0:
        raise LabError(f"{command_name(command)} failed with status {done.returncode}, see above")


def run_logged(
    command: Sequence[str],
    log: Path,
    what: str,
    say: Callable[[str], None],
    every: float = PROGRESS_SECONDS,
) -> None:
    """Run to the end, with all output added to `log`, and say now and then how far it is.

    A failure becomes one line: what was tried and what it said last.
    """
    require(command[0])
    started = time.monotonic()
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    try:
        while True:
            try:
                status = process.wait(timeout=every)
                break
            except subprocess.TimeoutExpired:
                passed = time.monotonic() - started
                say(f"{what}, {passed:.0f} s: {last_line(log.read_text(errors='replace'))}")
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if status != 0:
        said = log.read_text(errors="replace")
        raise _failure(what, status, said, f" (log: {log})")


def _failure(tried: str, status: int, said: str, where: str = "") -> LabError:
    return LabError(f"{tried} failed with status {status}: {last_line(said)}{where}")


def last_line(text: str) -> str:
    """What a program said last."""
    return (text.strip().splitlines() or ["(no output)"])[-1].strip()


def require(program: str) -> None:
    """Fail clearly when a program is missing."""
    if shutil.which(program, path=environment()["PATH"]) is None:
        raise LabError(f"{program} not found: run `python3 -m lab setup`")


def command_name(command: Sequence[str]) -> str:
    """The program that matters, without sudo and env in front."""
    rest = [word for word in command if word not in ("sudo", "env") and "=" not in word]
    return Path(rest[0]).name if rest else command[0]
