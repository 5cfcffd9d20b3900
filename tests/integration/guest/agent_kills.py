# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills the poller agent, and loaders that it started, again and again with SIGKILL.

    python3 -m guest.agent_kills --seconds 20

After each kill the spec in force is one that the kernel had been asked for before, as a whole: its
fingerprint is that of its settings. systemd starts the agent again, and nobody else does. The JSON
that is printed says how many were killed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from .commands import GuestError, run, status

AGENT = "btfleet-agent.service"
LOADERS = ("btfleet-apply.service", "btfleet-conntracker.service")


def processes(unit: str) -> list[int]:
    """The unit's processes, from its cgroup: systemctl takes too long to hit a loader."""
    try:
        text = Path(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").read_text()
    except OSError:
        return []
    return [int(line) for line in text.splitlines()]


def kill(unit: str) -> bool:
    """Whether there was anything to kill."""
    found = processes(unit)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


def check() -> None:
    """What is in force is one whole spec."""
    record = status()["record"]
    if record is None:
        raise GuestError("after a kill no tracker is loaded")
    canonical = json.dumps(record["spec"], sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(canonical.encode()).hexdigest() != record["fingerprint"]:
        raise GuestError(f"after a kill the spec in force is a mixture: {record}")


def work(seconds: float, seed: int) -> dict[str, object]:
    """The counted kills."""
    chance = random.Random(seed)  # noqa: S311
    killed: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # As the path unit does when the agent asks for something; the agent does it only once
        run("systemctl", "start", "--no-block", LOADERS[0])
        time.sleep(chance.uniform(0.1, 3.0))
        for unit in (AGENT, *LOADERS):
            if (unit != AGENT or chance.random() < 0.5) and kill(unit):
                killed[unit] += 1
        check()
    if not all(killed[unit] for unit in (AGENT, LOADERS[0])):
        raise GuestError(f"agent and loader were to be killed, killed were {dict(killed)}")
    return {"killed": dict(killed), "seed": seed}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    try:
        print(json.dumps(work(options.seconds, options.seed)))
    except GuestError as error:
        print(f"{error} (seed {options.seed})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
