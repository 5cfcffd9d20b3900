# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest to measure in: rolled out by the product's own playbook, scripts sent by ssh."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import ssh
from lab.paths import CHECKOUT
from lab.qemu import RunningGuest

FOLDER = "/root/btfleet-bench"
# The scripts use the installed release's own library
PYTHON_PATH = f"{FOLDER}:/opt/btfleet/current/lib"
Series = dict[str, list[float]]


class BenchError(Exception):
    """One line that says why there is no result."""


@dataclass(frozen=True)
class Guest:
    """One that is running."""

    machine: RunningGuest
    inventory: Path

    @property
    def name(self) -> str:
        """As in the lab's catalogue."""
        return self.machine.name

    def run(self, command: str, data: bytes = b"") -> str:
        """A shell command's output."""
        words = [*ssh.command_line(self.machine.port, ssh.private_key()), command]
        done = subprocess.run(words, input=data, capture_output=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise BenchError(f"{self.name}: {command}: {said[-1] if said else done.returncode}")
        return done.stdout.decode()

    def send_scripts(self) -> None:
        """Puts benchmarks/in_guest on the guest."""
        packed = subprocess.run(
            ["tar", "-c", "--exclude=__pycache__", "benchmarks/__init__.py", "benchmarks/in_guest"],
            cwd=CHECKOUT,
            capture_output=True,
            check=True,
        ).stdout
        self.run(f"mkdir -p {FOLDER} && tar -x -C {FOLDER}", packed)

    def measure(self, script: str, **options: int) -> Series:
        """What a script of benchmarks/in_guest measured."""
        words = ["env", f"PYTHONPATH={PYTHON_PATH}", "python3", "-m"]
        words += [f"benchmarks.in_guest.{script}", json.dumps(options)]
        found: Series = json.loads(self.run(shlex.join(words)))
        return found

    def playbook(self, playbook: str) -> None:
        """Runs a playbook on this guest alone."""
        words = ["ansible-playbook", "-i", str(self.inventory), "--limit", self.name, playbook]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{playbook} failed on {self.name}: {done.stdout.strip()[-300:]}")
