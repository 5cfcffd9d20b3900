# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading, swapping, and taking in the flows that are there already."""

from __future__ import annotations

import subprocess
from pathlib import Path

from btfleet._config import status
from btfleet._kernel.conntrack.layout import LIVE
from btfleet._kernel.store import Store

from benchmarks.in_guest import tiers, timing, translated_flows

PINS = "/sys/fs/bpf/btfleet-bench"


def bpftool_load() -> float:
    """bpftool loads and pins the same object, and neither attaches nor takes in anything."""
    path = Store().object_path(tiers.installed_spec().object_sha256)
    words = ["bpftool", "prog", "loadall", path, PINS]
    taken = timing.seconds(lambda: subprocess.run(words, capture_output=True, check=True))
    for pin in Path(PINS).iterdir():
        pin.unlink()
    Path(PINS).rmdir()
    return taken


def fresh_load(flows: int) -> float:
    """From no tracker to a tracker; everything in the table has to be in the map."""
    tiers.unload()
    taken = timing.seconds(tiers.load)
    entries = status.read().maps[LIVE]["entries"]
    if entries != flows * 2:
        raise RuntimeError(f"{entries} entries after the load, needed: {flows * 2}")
    return taken


def swap() -> float:
    """From a tracker to one with another setting, on the same maps."""
    tiers.load()
    return timing.seconds(lambda: tiers.load(udpv6_enabled=False))


def measure(rounds: int, flows: int) -> timing.Series:
    """Seconds."""
    translated_flows.flush()
    found = timing.in_turns(
        rounds,
        {"load": lambda: fresh_load(0), "swap": swap, "bpftool prog loadall": bpftool_load},
    )
    translated_flows.only(flows)
    full = timing.in_turns(
        rounds,
        {
            "load": lambda: fresh_load(flows),
            "swap": swap,
            "conntrack -L": timing.command(["conntrack", "-L"]),
        },
    )
    tiers.load()
    translated_flows.flush()
    return {**found, **{f"{name}, full table": values for name, values in full.items()}}


if __name__ == "__main__":
    timing.answer(lambda options: measure(options["rounds"], options["flows"]))
