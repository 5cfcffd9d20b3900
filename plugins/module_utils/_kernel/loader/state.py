# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is active on this host: what was recorded, and whether it still is so. Only reads."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Mapping

from ..backends import held_links
from ..backends.netlink import pulse
from ..backends.netlink.pulse import Pulse
from ..bpf import bpf
from ..bpf.bpffs import RECORD, STAGED, Pins, host_folder
from ..conntrack import record_map
from ..conntrack.layout import SHAPES
from ..host.modules import MODULE, module_number
from . import lock

# Seconds: a swap takes a moment, a dead process or a missing pin stays
_PATIENCE = 3.0
_PAUSE = 0.02


@dataclass(frozen=True)
class Loaded:
    """What the kernel holds. `record` is what the loader wrote when it had loaded, None if nothing
    is loaded; `drift` has a line for each thing that is not as the record says.
    """

    record: dict[str, object] | None = None
    drift: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the active spec."""
        return str(self.record["fingerprint"]) if self.record else None


@dataclass(frozen=True)
class Active:
    """The tracker that is active on this host. The paths are fixed but for tests."""

    folder: str = field(default_factory=host_folder)
    holder_path: str = held_links.SOCKET
    lock_path: str = lock.LOCK

    @property
    def pins(self) -> Pins:
        """Its pins."""
        return Pins(self.folder, RECORD)

    @property
    def reconciled_path(self) -> str:
        """Where the result of the last reconciliation lies."""
        return os.path.join(os.path.dirname(self.lock_path), "reconciled.json")

    def read(self) -> Loaded:
        """Compare the record with the kernel. Changes nothing. Raises PermissionError.

        A load that is under way swaps one pin after the other: what looks like drift is looked at
        again until it stays, and what that load has staged is none.
        """
        deadline = time.monotonic() + _PATIENCE
        before = None
        while True:
            is_loading = lock.is_held(self.lock_path)
            loaded = self.inspect(is_loading)
            if not loaded.drift or time.monotonic() > deadline:
                return loaded
            if loaded == before and not is_loading:
                return loaded
            before = loaded
            time.sleep(_PAUSE)

    def inspect(self, is_loading: bool = False) -> Loaded:
        """Compare once, for who holds the lock; `is_loading`: what is staged is somebody's."""
        names = tuple(self.pins.names())
        if is_loading:
            names = tuple(name for name in names if not name.startswith(STAGED))
        if not names:
            return Loaded()
        record = self.read_record()
        if record is None:
            return Loaded(None, ("the record of what was loaded is missing or damaged",), names)
        drift = []
        for name, wanted in record_map.numbers(record, "links").items():
            drift += self._check_link(name, wanted, record_map.numbers(record, "programs"))
        for name, wanted in record_map.numbers(record, "maps").items():
            drift += self._check_map(name, wanted)
        drift += self._check_held(record)
        if record.get("module") not in (None, module_number(MODULE)):
            drift.append(f"{MODULE} was loaded anew after the programs were attached: none runs")
        if record_map.is_followed(record):
            drift += pulse.drift(self.read_pulse())
        known = known_pins(record)
        drift += [_stray(name) for name in names if name not in known]
        return Loaded(record, tuple(drift), names)

    def read_record(self) -> dict[str, object] | None:
        """Return the record alone, None if there is none or it is damaged.

        It can be read by whoever may read maps. Raises PermissionError.
        """
        fd = self.pins.open(RECORD, bpf.RDONLY)
        if fd is None:
            return None
        with bpf.closing(fd):
            return record_map.read(fd)

    def read_pulse(self) -> Pulse | None:
        """Of the process that follows conntrack events, None where there is nothing for one."""
        fd = self.pins.open(pulse.PIN, bpf.RDONLY)
        if fd is None:
            return None
        with bpf.closing(fd):
            return pulse.read(fd)

    def _check_link(self, name: str, wanted: int, programs: dict[str, int]) -> list[str]:
        fd = self.pins.open(name)
        if fd is None:
            return [f"pin {name} is missing"]
        with bpf.closing(fd):
            info = bpf.link_info(fd)
        if info.id != wanted or info.prog_id != programs.get(record_map.role(name)):
            return [f"pin {name} holds link {info.id} of program {info.prog_id}, not link {wanted}"]
        return []

    def _check_held(self, record: dict[str, object]) -> list[str]:
        """Where a process holds the links: whether it still does, and of which programs."""
        token = record.get("held")
        if token is None:
            return []
        found = held_links.look(self.holder_path)
        links = found.sets.get(str(token)) if found else None
        if found is None or links is None:
            return [f"{held_links.NOT_HELD} any more: no program runs when flows come and go"]
        drift = []
        for role, program in record_map.probe_roles(record).items():
            fd = links.get(record_map.LINK + role, -1)
            number = bpf.program_of_event(found.pid, fd)
            if number != program:
                drift.append(
                    f"{held_links.NOT_HELD} of program {program}: process {found.pid} has "
                    f"program {number} in its place"
                )
        return drift

    def holding_process(self) -> int | None:
        """The process that holds links, None if there is none."""
        found = held_links.look(self.holder_path)
        return found.pid if found else None

    def _check_map(self, name: str, wanted: int) -> list[str]:
        fd = self.pins.open(name, bpf.RDONLY)
        if fd is None:
            return [f"pin {name} is missing"]
        with bpf.closing(fd):
            found = bpf.map_info(fd).id
        return [] if found == wanted else [f"pin {name} holds map {found}, not map {wanted}"]


def known_pins(record: Mapping[str, object]) -> set[str]:
    """Return the names of the pins that belong to a load."""
    known = {*record_map.numbers(record, "links"), *SHAPES, RECORD}
    return known | {pulse.PIN} if record_map.is_followed(record) else known


def _stray(name: str) -> str:
    if name.startswith(STAGED):
        return f"pin {name} is what a load that was killed has left: load again"
    return f"unknown pin {name}"
