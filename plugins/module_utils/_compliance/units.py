# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units: what systemd has in force, against what the current release brings."""

from __future__ import annotations

import os
from typing import Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.poller_agent import (
    UNITS as AGENT_UNITS,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import systemd
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    UNITS as BOOT_UNITS,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    Layout,
    packed_unit,
)

UNITS = (*BOOT_UNITS, *AGENT_UNITS)

# Directives that take one word; on and off have several spellings in a unit file
_WORDS = (
    *("Group", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices"),
    *("PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc"),
    *("ProtectSystem", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime"),
    *("RestrictSUIDSGID", "User"),
)
# Lists in any order
_SETS = ("AmbientCapabilities", "CapabilityBoundingSet", "RestrictAddressFamilies")
# Shown as the long list that a group of calls stands for, another one for each systemd: whether
# there is one at all is compared
_FILLED = ("SystemCallFilter",)
HARDENING = (*_WORDS, *_SETS, *_FILLED)

_SHOWN = ("ActiveState", "LoadState", "NeedDaemonReload", "Result", "UnitFileState", *HARDENING)
_SPELLINGS = {"true": "yes", "on": "yes", "1": "yes", "false": "no", "off": "no", "0": "no"}


class UnitReading(NamedTuple):
    """Digests are of the unit's file, and of the one in the current release. `wanted` has that
    one's hardening, `shown` what systemd says.
    """

    file: str | None = None
    packed: str | None = None
    wanted: Mapping[str, str] = {}
    shown: Mapping[str, str] = {}

    @property
    def is_installed(self) -> bool:
        """Whether its file is there."""
        return self.file is not None

    @property
    def enabled(self) -> bool:
        """Whether it starts at boot."""
        return self.shown.get("UnitFileState") == "enabled"

    @property
    def active(self) -> bool:
        """Whether it runs (or has done its work)."""
        return self.shown.get("ActiveState") == "active"

    @property
    def state(self) -> str:
        """Both in words."""
        enabled = self.shown.get("UnitFileState") or "not installed"
        return f"{enabled}, {self.shown.get('ActiveState') or 'unknown'}"


def read(run: Runner, layout: Layout, release: str | None) -> dict[str, UnitReading]:
    """All units by name, in one call of systemctl; raises HostError without systemd."""
    found = {}
    for name, shown in systemd.show(run, UNITS, _SHOWN).items():
        packed, wanted = None, {}
        if release is not None:
            path = packed_unit(layout, release, name)
            packed = systemd.file_digest(path)
            if packed is not None:
                with open(path, encoding="utf-8") as stream:
                    wanted = hardening(stream.read())
        file = systemd.file_digest(os.path.join(layout.units, name))
        found[name] = UnitReading(file, packed, wanted, shown)
    return found


def hardening(text: str) -> dict[str, str]:
    """The hardening directives of a unit file, as it has them; a repeated list is one list."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name in HARDENING:
            found[name] = f"{found.get(name, '')} {value}".strip()
    return found


def weaker(unit: UnitReading) -> list[str]:
    """What is not in force as the release has it: `Name=found, not wanted`.

    A directive that this systemd does not know is not shown, and not held against the host.
    """
    return [
        f"{name}={unit.shown[name] or '(empty)'}, not {wanted or '(empty)'}"
        for name, wanted in unit.wanted.items()
        if name in unit.shown and _normal(name, unit.shown[name]) != _normal(name, wanted)
    ]


def _normal(name: str, value: str) -> object:
    if name in _SETS:
        return frozenset(value.lower().split())
    if name in _FILLED:
        return bool(value.strip())
    return _SPELLINGS.get(value, value)
