# SPDX-License-Identifier: GPL-3.0-or-later
"""What a result depends on: the machine, the guest's kernel and settings, versions."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.guest import Guest

VERSIONS = {
    "python": "python3 -V",
    "conntrack": "conntrack -V",
    "bpftool": "bpftool version | head -n 1",
    "btfleet": "btfleet --version",
    "libbpf": "readlink -f /usr/lib/*/libbpf.so.1",
}


def cpu_model() -> str:
    """As /proc/cpuinfo has it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def of_host() -> dict[str, object]:
    """The machine that runs the guests."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def of_guest(guest: Guest) -> dict[str, object]:
    """One guest."""
    mitigations = guest.run("cd /sys/devices/system/cpu/vulnerabilities && grep -H . *")
    return {
        "accelerator": guest.machine.accelerator,
        "memory_mb": guest.machine.memory_mb,
        "cpus": int(guest.run("nproc")),
        "kernel": guest.run("uname -r").strip(),
        "command_line": guest.run("cat /proc/cmdline").strip(),
        "mitigations": dict(line.split(":", 1) for line in mitigations.splitlines()),
        "versions": {name: guest.run(command).strip() for name, command in VERSIONS.items()},
    }
