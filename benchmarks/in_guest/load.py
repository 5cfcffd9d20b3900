# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading the tracker, with and without flows that are there already, and swapping its settings."""

from __future__ import annotations

from pathlib import Path

from benchmarks.in_guest import tracker, translated_flows
from benchmarks.in_guest.counting import Figures, command

PINS = Path("/sys/fs/bpf/btfleet-bench")


def bpftool() -> float:
    """Have bpftool load and pin the same object: it neither checks, attaches nor syncs anything."""
    path = tracker.OBJECTS / f"{tracker.installed_spec()['object_sha256']}.bpf.o"
    taken = command(("bpftool", "prog", "loadall", str(path), str(PINS)))()
    for pin in PINS.iterdir():
        pin.unlink()
    PINS.rmdir()
    return taken


def fresh(flows: int) -> float:
    """Load where no tracker was; every flow of the kernel's table has to be in the map then."""
    tracker.unload()
    tracker.write_spec()
    taken = command(tracker.LOAD)()
    if tracker.live_entries() != flows * 2:
        raise RuntimeError(f"{tracker.live_entries()} entries of {flows} flows after the load")
    return taken


def swap() -> float:
    """Load another setting over a tracker that runs, on the same maps."""
    tracker.write_spec(udpv6_enabled=False)
    return command(tracker.LOAD)()


def measure(flows: int) -> Figures:
    """Return ns per command."""
    translated_flows.flush()
    tracker.load()  # to warm up
    found = {"load": fresh(0), "swap": swap(), "bpftool": bpftool()}
    translated_flows.only(flows)
    full = {
        "load": fresh(flows),
        "swap": swap(),
        "conntrack -L": command(("conntrack", "-L"))(),
    }
    translated_flows.flush()
    return {**found, **{f"{name}, with flows": figure for name, figure in full.items()}}
