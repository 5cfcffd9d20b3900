# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything on a host that a tracker could leave behind: recorded before, compared after.

python3 -m guest.traces record FILE
python3 -m guest.traces compare FILE    exit code 1, and a line for each difference
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from .commands import bpftool, run

# Whole folders of the root file system that others write to while the guest runs: logs, what
# systemd keeps about itself, Ansible's own temporary files, and this test.
OTHERS = (
    "/root/.ansible",
    "/root/btfleet-tests",
    "/tmp",  # noqa: S108
    "/var/cache",
    "/var/lib/systemd",
    "/var/log",
    "/var/tmp",  # noqa: S108
)
# Other file systems where something of ours could be.
ALSO = ("/dev/shm", "/run", "/sys/fs/bpf")  # noqa: S108
# What useradd and userdel keep as it was before their last change
BACKUPS = ("/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-")
KPROBES = Path("/sys/kernel/debug/kprobes/list")
FTRACE = Path("/sys/kernel/tracing/enabled_functions")


def look() -> dict[str, list[str]]:
    """Lists of lines, by what they are about."""
    return {
        "files": sorted(_files()),
        "ours elsewhere": sorted(_ours_elsewhere()),
        "units": sorted(_units()),
        "bpf programs": _names("prog"),
        "bpf maps": _names("map"),
        "bpf links": sorted(f"{link['type']}" for link in bpftool("link", "show")),
        "kprobes": [line.split()[2] for line in _lines(KPROBES)],
        "traced functions": [line.split()[0] for line in _lines(FTRACE)],
    }


def _files() -> list[str]:
    found = []
    device = os.stat("/").st_dev
    for folder, folders, names in os.walk("/"):
        here = [os.path.join(folder, name) for name in folders]
        folders[:] = [
            os.path.basename(path)
            for path in here
            if path not in OTHERS and os.lstat(path).st_dev == device
        ]
        found += [path for path in here if path not in OTHERS]
        found += [_described(os.path.join(folder, name)) for name in names]
    return found


def _described(path: str) -> str:
    """A file below /etc by its content as well: those are the ones that others' settings are in."""
    if os.path.islink(path):
        return f"{path} -> {os.readlink(path)}"
    if path.startswith("/etc/") and path not in BACKUPS and os.path.isfile(path):
        return f"{path} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    return path


def _ours_elsewhere() -> list[str]:
    return [
        os.path.join(folder, name)
        for top in ALSO
        for folder, folders, names in os.walk(top)
        for name in [*folders, *names]
        if "btfleet" in name or folder.startswith("/sys/fs/bpf")
    ]


def _units() -> list[str]:
    files = run("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines()
    loaded = run("systemctl", "list-units", "--all", "--no-legend", "--plain").splitlines()
    words = [line.split() for line in loaded]
    return [" ".join(line.split()[:2]) for line in files] + [
        f"loaded {line[0]}" for line in words if "btfleet" in line[0]
    ]


def _names(kind: str) -> list[str]:
    """Without systemd's own (sd_…), which come and go with its units."""
    names = {str(one.get("name", "")) for one in bpftool(kind, "show")}
    return sorted(name for name in names if not name.startswith("sd_"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def compare(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """A line for each thing that came or went."""
    found = []
    for kind, lines in after.items():
        earlier = before.get(kind, [])
        came, went = set(lines) - set(earlier), set(earlier) - set(lines)
        found += [f"{kind}: new: {line}" for line in lines if line in came]
        found += [f"{kind}: gone: {line}" for line in earlier if line in went]
        if not found and len(lines) != len(earlier):
            found.append(f"{kind}: {len(lines)}, before: {len(earlier)}")
    return found


def main() -> int:
    """The exit code."""
    action, path = sys.argv[1], Path(sys.argv[2])
    now = look()
    if action == "record":
        path.write_text(json.dumps(now))
        return 0
    differences = compare(json.loads(path.read_text()), now)
    for line in differences:
        print(line)
    print(f"{sum(map(len, now.values()))} things looked at, {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
