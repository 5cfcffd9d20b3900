# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd: reading their state, and asking for another one."""

from __future__ import annotations

import hashlib
import os
from typing import Mapping, NamedTuple

from .commands import Runner


class HostError(Exception):
    """One line: what was found on the host, what was needed, what to do."""


class Unit(NamedTuple):
    """`digest` is that of the unit file, None if it is not there."""

    digest: str | None = None
    enabled: bool = False
    active: bool = False

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows."""
        return {"active": self.active, "enabled": self.enabled, "file": self.digest}


def call(run: Runner, *arguments: str, may_fail: bool = False) -> str:
    """What `systemctl` says; raises HostError if it fails, unless it may."""
    code, output, errors = run(["systemctl", *arguments])
    if code != 0 and not may_fail:
        detail = " ".join(errors.split()) or f"exit code {code}"
        raise HostError(
            f"systemctl {' '.join(arguments)} failed ({detail}): "
            "systemd is needed, and has to take the unit"
        )
    return output


def show(
    run: Runner, names: tuple[str, ...], properties: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Properties of units by unit, in one call; raises HostError without systemd.

    What this systemd does not know is left out.
    """
    text = call(run, "show", *names, f"--property={','.join(('Id', *properties))}")
    shown = {}
    for block in text.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        shown[fields.get("Id")] = fields
    return {name: shown.get(name, {}) for name in names}


def read(run: Runner, folder: str, names: tuple[str, ...]) -> dict[str, Unit]:
    """The units whose files lie in `folder`; raises HostError without systemd."""
    return {
        name: Unit(
            file_digest(os.path.join(folder, name)),
            fields.get("UnitFileState") == "enabled",
            fields.get("ActiveState") == "active",
        )
        for name, fields in show(run, names, ("UnitFileState", "ActiveState")).items()
    }


def file_digest(path: str) -> str | None:
    """SHA-256 of a file, None if it is not there."""
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return None


def write(folder: str, name: str, content: bytes) -> None:
    """Puts a unit file in place of the one there is; systemd has to be told (daemon-reload)."""
    path = os.path.join(folder, name)
    with open(path + ".btfleet-new", "wb") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), 0o644)
    os.replace(path + ".btfleet-new", path)


def install(
    run: Runner,
    folder: str,
    before: Mapping[str, Unit],
    packed: Mapping[str, str],
    enabled: tuple[str, ...],
) -> None:
    """Puts unit files (`packed`, by unit) where systemd looks, and enables those in `enabled`."""
    changed = [name for name, path in packed.items() if file_digest(path) != before[name].digest]
    for name in changed:
        with open(packed[name], "rb") as stream:
            write(folder, name, stream.read())
    if changed:
        call(run, "daemon-reload")
    disabled = [name for name in enabled if not before[name].enabled]
    if disabled:
        call(run, "enable", "--quiet", *disabled)


def remove(run: Runner, folder: str, names: tuple[str, ...]) -> None:
    """Stops the units, and takes their files away."""
    there = [name for name in names if os.path.lexists(os.path.join(folder, name))]
    if not there:
        return
    call(run, "disable", "--now", "--quiet", *there)
    for name in there:
        os.unlink(os.path.join(folder, name))
    call(run, "daemon-reload")
    call(run, "reset-failed", *there, may_fail=True)
