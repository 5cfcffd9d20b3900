# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible inventory of the running guests."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from lab import ssh
from lab.qemu import RunningGuest


def host_variables(guest: RunningGuest, key: Path) -> dict[str, str | int]:
    """How Ansible reaches one guest."""
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": guest.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_python_interpreter": "/usr/bin/python3",
        # Unlike Ansible's own, no compression: it costs more than it saves on a local link.
        "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
        "ansible_ssh_common_args": shlex.join(ssh.OPTIONS),
    }


def render_inventory(guests: Mapping[str, RunningGuest], key: Path) -> str:
    """The inventory as YAML (a JSON scalar is one in YAML too)."""
    if not guests:
        return "---\nall:\n  hosts: {}\n"
    lines = ["---", "all:", "  hosts:"]
    for name, guest in guests.items():
        lines.append(f"    {name}:")
        for field, value in host_variables(guest, key).items():
            lines.append(f"      {field}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def write_inventory(state: Path, guests: Mapping[str, RunningGuest], key: Path) -> Path:
    """Write it in one step, so that no reader sees half of it."""
    path = state / "inventory.yml"
    draft = path.with_suffix(".yml.new")
    draft.write_text(render_inventory(guests, key))
    draft.replace(path)
    return path
