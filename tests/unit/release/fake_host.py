# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's systemd and accounts, which record what was asked of them; other commands really run."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

ACCOUNT = "btfleet"
GID = 54321


class FakeHost:
    """Runs commands as AnsibleModule.run_command does."""

    def __init__(self, units: str) -> None:
        self.calls: list[str] = []
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        self.users: dict[str, int] = {"root": 0}
        self.groups: dict[str, int] = {"root": 0}
        self.failing: str | None = None
        self.units = units

    # --- commands ------------------------------------------------------------------------------

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        name = command[0]
        if name.startswith("/"):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr
        if command[1:2] != ["show"]:
            self.calls.append(" ".join(command))
        if self.failing and self.failing in " ".join(command):
            return 1, "", f"{name} says\n  no\n"
        if name == "systemctl":
            return 0, self._systemctl(command[1], command[2:]), ""
        getattr(self, name)(command[-1])
        return 0, "", ""

    def _systemctl(self, verb: str, arguments: list[str]) -> str:
        names = [name for name in arguments if not name.startswith("-")]
        if verb == "show":
            return "\n".join(self._shown(name) for name in names)
        for name in names:
            there = os.path.exists(os.path.join(self.units, name))
            if verb in ("enable", "start", "restart") and not there:
                raise AssertionError(f"{verb} of {name}, which is not there")
        if verb == "enable":
            self.enabled.update(names)
        elif verb in ("start", "restart"):
            self.active.update(name for name in names if not name.endswith("-apply.service"))
        elif verb == "disable":
            self.enabled.difference_update(names)
            self.active.difference_update(names)
        elif verb == "stop":
            self.active.difference_update(names)
        return ""

    def _shown(self, name: str) -> str:
        there = os.path.exists(os.path.join(self.units, name))
        enabled = "enabled" if name in self.enabled else "disabled" if there else ""
        active = "active" if name in self.active else "inactive"
        return f"Id={name}\nUnitFileState={enabled}\nActiveState={active}\n"

    def groupadd(self, name: str) -> None:
        self.groups[name] = GID

    def groupdel(self, name: str) -> None:
        del self.groups[name]

    def useradd(self, name: str) -> None:
        self.users[name] = self.groups[name]

    def userdel(self, name: str) -> None:
        """As with USERGROUPS_ENAB: its group goes along."""
        del self.users[name]
        del self.groups[name]

    # --- the modules grp and pwd ---------------------------------------------------------------

    def getgrnam(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(gr_gid=self.groups[name])

    def getpwnam(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(pw_gid=self.users[name])

    def getgrgid(self, gid: int) -> SimpleNamespace:
        return SimpleNamespace(gr_name={gid: name for name, gid in self.groups.items()}[gid])

    def getpwuid(self, uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_name={0: "root"}[uid])
