# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel modules of conntrack: whether they are loaded, and whether they still are the same."""

from __future__ import annotations

import os

MODULE = "nf_conntrack"
NETLINK_MODULE = "nf_conntrack_netlink"


def module_state(name: str) -> str:
    """One of: loaded, builtin, available (can be loaded from disk), absent."""
    tree = f"/lib/modules/{os.uname().release}"
    if f"/{name}.ko" in _read(f"{tree}/modules.builtin"):
        return "builtin"
    if os.path.isdir(f"/sys/module/{name}"):
        # A module on its own has a state, a part of the kernel image has only parameters
        return "loaded" if os.path.exists(f"/sys/module/{name}/initstate") else "builtin"
    if f"/{name}.ko" in _read(f"{tree}/modules.dep"):
        return "available"
    return "absent"


def module_number(name: str) -> int | None:
    """A number that a module gets anew each time that it is loaded; None if it has no folder.

    It is the inode of that folder in sysfs, which counts up and is never used twice (5.5).
    """
    try:
        return os.stat(f"/sys/module/{name}").st_ino
    except OSError:
        return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""
