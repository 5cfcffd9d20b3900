# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the installed object in the way that a measurement needs, by the installed command."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INSTALLED = Path("/etc/btfleet/spec.json")
OBJECTS = Path("/var/lib/btfleet/objects")
PINS = Path("/sys/fs/bpf/btfleet")
SPEC = Path(__file__).with_name("spec.json")
KPROBE, FENTRY = "core/kprobe", "core/fentry"
LOAD = ("btfleet", "load", "--spec", str(SPEC))


def run(words: Sequence[str]) -> str:
    """Return a command's output. Raises RuntimeError with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def installed_spec() -> dict[str, Any]:
    """Return the spec that the rollout left."""
    found: dict[str, Any] = json.loads(INSTALLED.read_text())
    return found


def write_spec(**settings: object) -> None:
    """Write the installed spec with these settings as the one that LOAD loads."""
    SPEC.write_text(json.dumps({**installed_spec(), **settings}))


def load(tier: str | None = None, **settings: object) -> None:
    """Load the installed spec with these settings.

    A guest of the lab may run fentry where detaching could deadlock it.
    """
    if tier:
        settings |= {"tiers": [tier], "allow_fentry_deadlock": tier == FENTRY}
    write_spec(**settings)
    run(LOAD)


def unload() -> None:
    """Remove every pin, and wait until the kernel has let go of the programs."""
    numbers = programs() if PINS.exists() and any(PINS.iterdir()) else []
    for pin in PINS.glob("*"):
        pin.unlink()
    deadline = time.monotonic() + 60
    while set(numbers) & {each["id"] for each in all_programs()}:
        if time.monotonic() > deadline:
            raise RuntimeError("the programs are still there a minute after their pins went")
        time.sleep(0.1)


def begin_anew() -> None:
    """Load what the rollout had loaded, with nothing in its maps of what was measured before."""
    run(("conntrack", "-F"))
    unload()
    run(("btfleet", "load"))


def status() -> dict[str, Any]:
    """Return what `btfleet status` says."""
    # Its exit code is about health, which is not looked at here
    words = ("btfleet", "status", "--json")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def live_entries() -> int:
    """Return how many entries the map of living flows has: two per flow."""
    maps = status()["maps"]
    return int(maps["conntrack_live"]["entries"])


def programs() -> list[int]:
    """Return the numbers of the tracker's programs."""
    record = status()["record"]
    return list(record["programs"].values()) if record else []


def all_programs() -> list[dict[str, Any]]:
    """Return what the kernel says of each program."""
    found: list[dict[str, Any]] = json.loads(run(("bpftool", "--json", "prog", "show")))
    return found
