# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracker's maps, read without any privilege: the pins are readable by the agent's group.

A pin is opened for each use, so that after a load with other sizes the new map is read. Whole maps
are read through the pinned iterators, as `kernel.reading` says why.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from typing import Callable, Iterator, NamedTuple

from btfleet._kernel.backends.netlink import pulse
from btfleet._kernel.backends.netlink.pulse import Pulse
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.bpffs import FOLDER, Pins
from btfleet._kernel.conntrack import reading
from btfleet._kernel.conntrack.flow import LIVE_STATE, Flow
from btfleet._kernel.conntrack.layout import COUNTERS_MAP, read_counters
from btfleet._kernel.conntrack.lookup import Lookup, keys
from btfleet._kernel.conntrack.table import Filter
from btfleet._kernel.errors import LoaderError
from btfleet._kernel.loader.state import Active

# Counting entries means reading the whole map: it is done at most this often, and takes at most
# this share of the time
_FILL_SECONDS = 10.0
_FILL_SHARE = 0.02


class Fill(NamedTuple):
    """How full a map is, and when (monotonic) that was counted."""

    entries: int
    max_entries: int
    map_id: int
    until: float


class Maps:
    """Reads the maps of the tracker that is loaded now. Raises LoaderError where none is."""

    def __init__(self, folder: str = FOLDER, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._pins = Pins(folder)
        self._clock = clock
        self._fills: dict[str, Fill] = {}

    def record(self) -> dict[str, object] | None:
        """What the loader wrote when it had loaded, None if nothing is loaded."""
        return Active(self.folder).read_record()

    def pulse(self) -> Pulse | None:
        """Of the process that follows conntrack events, None where the object does the work."""
        with self._readable(pulse.PIN):
            return Active(self.folder).read_pulse()

    def lookup(
        self, namespace: int, zone: int, protocol: str, ends: tuple[str, int, str, int]
    ) -> Flow | None:
        """A flow by either direction, as `kernel.conntrack.lookup` says; `namespace` 0 is the root
        one. Raises TrackerError for what cannot be a flow.
        """
        wanted = keys(namespace or None, zone, protocol, ends)
        with self._readable(reading.MAPS[LIVE_STATE]), Lookup(self._pins) as maps:
            return maps.find(wanted)

    def flows(self, states: list[str], wanted: Filter) -> Iterator[Flow]:
        """The flows that `wanted` lets through, read as they are asked for."""
        for state in states:
            with self._readable(reading.MAPS[state]):
                found = reading.flows(self._pins, state, wanted)
            yield from found

    def counters(self) -> dict[str, int]:
        """The object's counters."""
        with ExitStack() as stack:
            return read_counters(self._open(COUNTERS_MAP, stack))

    def fills(self) -> dict[str, Fill]:
        """How full the maps are, by state."""
        with ExitStack() as stack:
            return {state: self._fill(name, stack) for state, name in reading.MAPS.items()}

    def _fill(self, name: str, stack: ExitStack) -> Fill:
        fd = self._open(name, stack)
        info = bpf.map_info(fd)
        before, now = self._fills.get(name), self._clock()
        if before and before.map_id == info.id and now < before.until:
            return before
        with self._readable(name):
            entries = reading.fill(self._pins, name)
        took = self._clock() - now
        until = now + max(_FILL_SECONDS, took / _FILL_SHARE)
        fill = self._fills[name] = Fill(entries, info.max_entries, info.id, until)
        return fill

    def _open(self, name: str, stack: ExitStack) -> int:
        with self._readable(name):
            fd = self._pins.open_map(name)
        stack.callback(os.close, fd)
        return fd

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise LoaderError(
                f"no permission for {self._pins.path(name)}: load the tracker again "
                "(`btfleet load`), which lets the group of the agent read it"
            ) from None
