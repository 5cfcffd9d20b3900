# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks.rollout`: a rollout that changes nothing, against as many pings.

Timed, in turns, on one guest. Writes build/bench/rollout.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.guest import BenchError, Guest
from lab import guests, qemu
from lab.catalogue import find_host
from lab.errors import LabError
from lab.paths import DEFAULT_STATE

STATE = DEFAULT_STATE.with_name("lab-bench")
OUT = DEFAULT_STATE.with_name("bench")
ROUNDS = 3
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


def measure(guest: Guest, folder: Path, rounds: int) -> dict[str, list[float]]:
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
    found: dict[str, list[float]] = {"module runs": [runs], **{name: [] for name in actions}}
    for _round in range(rounds):
        for name, action in actions.items():
            started = time.monotonic()
            action()
            found[name].append(time.monotonic() - started)
    return found


def main() -> int:
    """The command line."""
    OUT.mkdir(parents=True, exist_ok=True)
    host = machine.of_host()

    def say(text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    try:
        inventory = guests.start([find_host("debian13")], STATE, say)
        guest = Guest(qemu.running_guests(STATE)["debian13"], inventory)
        found = measure(guest, OUT, ROUNDS)
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    finally:
        guests.stop([], STATE, say)
    (OUT / "rollout.json").write_text(json.dumps({"host": host, **found}, indent=1) + "\n")
    ratio = statistics.median(ours / peer for ours, peer in zip(found["rollout"], found["pings"]))
    print(f"a rollout without a change takes {ratio:.2f} of as many pings (aim: less than 2)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
