# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory is YAML that Ansible reads as meant."""

from __future__ import annotations

from pathlib import Path

import yaml

from lab.inventory import render_inventory
from lab.qemu import RunningGuest

KEY = Path("/home/a person/.cache/btfleet/ssh/id_ed25519")


def test_inventory() -> None:
    guest = RunningGuest(7, "/state/debian12/qemu.pid", 2222, "tcg", 1024)
    hosts = yaml.safe_load(render_inventory({"debian12": guest}, KEY))["all"]["hosts"]
    assert list(hosts) == ["debian12"]
    host = hosts["debian12"]
    assert host["ansible_host"] == "127.0.0.1"
    assert host["ansible_port"] == 2222
    assert host["ansible_user"] == "root"
    assert host["ansible_ssh_private_key_file"] == str(KEY)
    assert host["ansible_python_interpreter"] == "/usr/bin/python3"
    assert "ControlPersist=60s" in host["ansible_ssh_args"]
    assert "UserKnownHostsFile=/dev/null" in host["ansible_ssh_common_args"]
    assert "ConnectTimeout=" in host["ansible_ssh_common_args"]


def test_inventory_without_guests() -> None:
    assert yaml.safe_load(render_inventory({}, KEY)) == {"all": {"hosts": {}}}
