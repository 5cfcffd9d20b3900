# SPDX-License-Identifier: GPL-3.0-or-later
"""How compliance grows with the hosts, on the local connection: each is this machine again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.guest import BenchError
from lab.paths import CHECKOUT

FORKS = 10


def measure(folder: Path, counts: Sequence[int]) -> dict[int, dict[str, float]]:
    """Seconds by number of hosts: compliance with its report, and one ping of each host."""
    pings = folder / "ping.yml"
    pings.write_text(
        "---\n- name: Ping\n  hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - name: Ping\n      ansible.builtin.ping:\n"
    )
    found = {}
    for count in counts:
        inventory = folder / f"local-{count}.yml"
        inventory.write_text(json.dumps(_inventory(folder, count)))
        found[count] = {
            "compliance": _seconds(inventory, "btfleet.conntrack.compliance"),
            "ping": _seconds(inventory, str(pings)),
        }
    return found


def _inventory(folder: Path, count: int) -> dict[str, object]:
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "compliance_folder": str(folder / f"reports-{count}"),
        # This machine has no tracker: every host fails, and the reports say so
        "compliance_fail_percent": 100,
    }
    hosts: dict[str, None] = {f"host{number:03}": None for number in range(count)}
    return {"all": {"hosts": hosts, "vars": variables}}


def _seconds(inventory: Path, playbook: str) -> float:
    words = ["ansible-playbook", "-i", str(inventory), "--forks", str(FORKS), playbook]
    started = time.monotonic()
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{playbook} failed: {done.stdout.strip()[-300:]}")
    return time.monotonic() - started
