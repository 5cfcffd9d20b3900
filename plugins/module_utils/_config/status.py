# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of this host's tracker, in one reading."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from .._kernel.backends.netlink import pulse
from .._kernel.bpf import bpf
from .._kernel.conntrack import reading
from .._kernel.conntrack.layout import CLOSED, COUNTERS_MAP, LIVE, SHAPES, read_counters
from .._kernel.conntrack.record_map import is_followed
from .._kernel.errors import InvalidSpec
from .._kernel.loader import misses, reconciled, telemetry
from .._kernel.loader.state import Active
from .._kernel.store import Store
from . import remote


@dataclass(frozen=True)
class Status:
    """`maps` gives entries and max_entries a map; `load_results` see `telemetry`; `owners` has who
    decided each setting of the spec in force (see `remote.owners_in_force`); `follower` is the sign
    of life of the process that keeps the table in the tier netlink (see `pulse`), `unseen` has a
    line for each reason why it does not follow some namespaces; `reconciled` is
    what the last reconciliation found (see `reconciled.Result`), None in that tier; `holder` is the
    process that holds the links, where one has to.
    """

    record: dict[str, object] | None
    drift: tuple[str, ...] = ()
    maps: dict[str, dict[str, int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    load_results: tuple[dict[str, object], ...] = ()
    owners: dict[str, str | None] = field(default_factory=dict)
    follower: dict[str, int | bool] | None = None
    unseen: tuple[str, ...] = ()
    reconciled: dict[str, object] | None = None
    holder: int | None = None

    @property
    def healthy(self) -> bool:
        """Loaded, all as recorded, and the flows of all namespaces are seen."""
        return self.record is not None and not self.drift and not self.unseen

    @property
    def degraded(self) -> str | None:
        """Why there is no better tier, where that matters; None where the object runs."""
        return (
            str(self.record.get("degraded")) if is_followed(self.record) and self.record else None
        )

    def to_dict(self) -> dict[str, object]:
        """Plain data, as in JSON."""
        return {
            **asdict(self),
            "loaded": self.record is not None,
            "healthy": self.healthy,
            "degraded": self.degraded,
        }


def read(active: Active | None = None, store: Store | None = None, fill: bool = True) -> Status:
    """Read it all; counting the maps' entries means reading them, which `fill` can spare."""
    active, store = active or Active(), store or Store()
    loaded = active.read()
    maps: dict[str, dict[str, int]] = {}
    counters: dict[str, int] = {}
    for name in (LIVE, CLOSED):
        fd = active.pins.open(name, bpf.RDONLY)
        if fd is not None:
            with bpf.closing(fd):
                info = bpf.map_info(fd)
                if not _is_ours(name, info):
                    continue
                maps[name] = {"max_entries": info.max_entries}
                if fill:
                    maps[name]["entries"] = reading.fill(active.pins, name)
    found = active.read_pulse() if is_followed(loaded.record) else None
    fd = active.pins.open(COUNTERS_MAP, bpf.RDONLY)
    if fd is not None:
        with bpf.closing(fd):
            if _is_ours(COUNTERS_MAP, bpf.map_info(fd)):
                counters = {**read_counters(fd), **misses.read(loaded.record)}
    return Status(
        record=loaded.record,
        drift=loaded.drift,
        maps=maps,
        counters=counters,
        load_results=tuple(telemetry.read(store)),
        owners=_owners(store, loaded.record),
        follower=found.to_dict() if found else None,
        unseen=tuple(pulse.unfollowed(found)),
        reconciled=_reconciled(active, loaded.record),
        holder=active.holding_process() if (loaded.record or {}).get("held") else None,
    )


def _is_ours(name: str, info: bpf.MapInfo) -> bool:
    # What somebody else has pinned there could not be read as one of ours; it is named as drift
    return (info.type, info.key_size, info.value_size) == SHAPES[name]


def _reconciled(active: Active, record: dict[str, object] | None) -> dict[str, object] | None:
    if record is None or is_followed(record):
        return None
    return reconciled.to_dict(reconciled.read(record, active.reconciled_path))


def _owners(store: Store, record: dict[str, object] | None) -> dict[str, str | None]:
    spec = record["spec"] if record else None
    if not isinstance(spec, dict):
        return {}
    try:
        base = store.read_spec()
    except InvalidSpec:
        base = None
    return remote.owners_in_force(spec, base, remote.effective(store, base) if base else None)
