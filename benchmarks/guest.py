# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest to measure in: rolled out by the product's own playbook, scripts sent by ssh."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import ssh
from lab.paths import CHECKOUT
from lab.qemu import RunningGuest

FOLDER = "/root/btfleet-bench"


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

    @contextlib.contextmanager
    def with_scripts(self) -> Iterator[None]:
        """Have benchmarks/in_guest on the guest, for a while."""
        packed = subprocess.run(
            ["tar", "-c", "--exclude=__pycache__", "benchmarks/__init__.py", "benchmarks/in_guest"],
            cwd=CHECKOUT,
            capture_output=True,
            check=True,
        ).stdout
        self.run(f"mkdir -p {FOLDER} && tar -x -C {FOLDER}", packed)
        try:
            yield
        finally:
            self.run(f"rm -r {FOLDER}")

    def measure(self, script: str, **options: int) -> dict[str, float]:
        """What a script of benchmarks/in_guest measured, by name."""
        words = ["python3", "-m", "benchmarks.in_guest", script, json.dumps(options)]
        found: dict[str, float] = json.loads(self.run(f"cd {FOLDER} && {shlex.join(words)}"))
        return found

    def install_object(self, path: Path) -> None:
        """Put an object file in the place of the installed one, for loads from now on."""
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.run(f"cat >/var/lib/btfleet/objects/{digest}.bpf.o", content)
        spec = json.loads(self.run("cat /etc/btfleet/spec.json"))
        text = json.dumps({**spec, "object_sha256": digest})
        self.run("cat >/etc/btfleet/spec.json", text.encode())

    def shut_down(self) -> None:
        """Begin to power off. Its disk stays for the next start."""
        # The connection ends before the command's answer can come
        self.run("systemd-run --quiet --no-block systemctl poweroff")

    def playbook(self, playbook: str) -> None:
        """Runs a playbook on this guest alone."""
        words = ["ansible-playbook", "-i", str(self.inventory), "--limit", self.name, playbook]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{playbook} failed on {self.name}: {done.stdout.strip()[-300:]}")
