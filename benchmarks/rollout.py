# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout that changes nothing against as many runs of the ping module, on the same host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.guest import BenchError, Guest, Series

ROLLOUT = "btfleet.conntrack.rollout"


def module_runs(guest: Guest) -> int:
    """How many module runs the guest has seen: each leaves a line in its journal."""
    return int(guest.run("journalctl -b -o cat | grep -c '^Invoked with' || true"))


def pings(folder: Path, count: int) -> str:
    """A playbook of that many module runs and nothing else."""
    tasks = "".join(f"    - name: Ping {n}\n      ansible.builtin.ping:\n" for n in range(count))
    path = folder / "pings.yml"
    path.write_text(f"---\n- name: Ping\n  hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")
    return str(path)


def counted(guest: Guest, playbook: str) -> int:
    """The module runs of a playbook."""
    before = module_runs(guest)
    guest.playbook(playbook)
    return module_runs(guest) - before


def measure(guest: Guest, folder: Path, rounds: int) -> Series:
    """Seconds, and the number of module runs."""
    guest.playbook(ROLLOUT)  # whatever it has left to do
    runs = counted(guest, ROLLOUT)
    peer = pings(folder, runs)
    if runs == 0 or counted(guest, peer) != runs:
        raise BenchError(f"{guest.name}: {runs} module runs of a rollout, and not as many pings")
    actions: dict[str, Callable[[], None]] = {
        "rollout": lambda: guest.playbook(ROLLOUT),
        "pings": lambda: guest.playbook(peer),
    }
    found: Series = {"module runs": [runs], **{name: [] for name in actions}}
    for _round in range(rounds):
        for name, action in actions.items():
            started = time.monotonic()
            action()
            found[name].append(time.monotonic() - started)
    return found
