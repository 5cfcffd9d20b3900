# SPDX-License-Identifier: GPL-3.0-or-later
"""Running other programs, with root rights where needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError


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


def run(command: Sequence[str], log: Path | None = None, what: str = "") -> str:
    """Run to the end and return stdout.

    A failure becomes one line: what was tried (else the program's name) and what it said last.
    """
    require(command[0])
    if log is None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        said = done.stderr or done.stdout
    else:
        with log.open("ab") as sink:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        said = log.read_text(errors="replace")
    if done.returncode != 0:
        last = (said.strip().splitlines() or ["(no output)"])[-1]
        where = f" (log: {log})" if log else ""
        tried = what or command_name(command)
        raise LabError(f"{tried} failed with status {done.returncode}: {last}{where}")
    return done.stdout or ""


def require(program: str) -> None:
    """Fail clearly when a program is missing."""
    if shutil.which(program) is None:
        raise LabError(f"{program} not found: run `python3 -m lab setup`")


def command_name(command: Sequence[str]) -> str:
    """The program that matters, without sudo and env in front."""
    rest = [word for word in command if word not in ("sudo", "env") and "=" not in word]
    return Path(rest[0]).name if rest else command[0]
