# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the table by a process that follows conntrack events: the same maps, and no programs."""

from __future__ import annotations

import os
import time

from ...bpf import bpf
from ...bpf.bpffs import RECORD
from ...conntrack import layout, record_map
from ...conntrack.layout import CLOSED, LIVE
from ...spec import NETLINK
from .. import seed
from ..base import Backend, Request, former_maps, keep_links_of, kept_maps
from . import follower_process, pulse
from .follower import Staged
from .follower_process import OwnThread
from .pulse import Pulse

# The record has room for so much of the reasons
_REASON = 1500


class Netlink(Backend):
    """A process of the load's own is up, with all flows in its maps, before the former tracker
    goes; one that followed for that ends by itself, as soon as it sees the swap.
    """

    own_follower: OwnThread | None = None

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._made: dict[str, int] = {}
        self._replaced: dict[str, int] = {}
        self._former: Pulse | None = None
        # Closed at the swap, or when this load is given up (see `Staged`)
        self._loader_end: int | None = None

    def prepare(self) -> None:
        former = former_maps(self.request, self.stack)
        kept = kept_maps(self.request, former)
        spec = self.request.spec
        sizes = layout.sizes(spec.max_entries, spec.closed_entries)
        for name, size in sizes.items():
            if name in kept:
                self._made[name] = former[name]
                continue
            shape = layout.SHAPES[name]
            fd = bpf.map_create(shape.type, shape.key_size, shape.value_size, size, name)
            self.stack.callback(os.close, fd)
            self._made[name] = fd
            if name in former and name in (LIVE, CLOSED):
                self._replaced[name] = former[name]
                seed.MapCalls().copy(former[name], fd)
        self._pulse_fd = self.stack.enter_context(bpf.closing(pulse.make_map()))
        self.record.update(self._make_record())
        self._record_fd = self.stack.enter_context(bpf.closing(record_map.make(self.record)))

    def attach(self) -> None:
        self._former = self._former_pulse()
        reader, self._loader_end = os.pipe()
        maps = {**self._made, pulse.PIN: self._pulse_fd}
        staged = Staged(bpf.map_info(self._record_fd).id, self.request.spec, maps, reader)
        try:
            if self.request.stays:
                self.own_follower = OwnThread(self.request.pins.folder, staged)
            else:
                follower_process.start(self.request.pins.folder, staged)
                self.new_keeper = True
        finally:
            os.close(reader)

    def sync(self) -> None:
        follower_process.await_synced(self._read_pulse)

    def pinned(self) -> dict[str, int]:
        return {**self._made, pulse.PIN: self._pulse_fd, RECORD: self._record_fd}

    def keep(self) -> None:
        """Its process is one of its own, and sees the swap."""

    def settle(self) -> None:
        self._release()
        keep_links_of(None, self.request.holder_path)
        try:
            self.await_former_gone()
            follower_process.await_end(self._former)
        finally:
            if CLOSED in self._replaced:
                # And once more: until now, flows were moved there too
                seed.MapCalls().copy(self._replaced[CLOSED], self._made[CLOSED])

    def abandon(self) -> None:
        is_started = self._loader_end is not None
        self._release()
        if is_started:
            follower_process.await_end(self._read_pulse())
        super().abandon()

    def close(self) -> None:
        self._release()
        super().close()

    def _release(self) -> None:
        if self._loader_end is not None:
            os.close(self._loader_end)
            self._loader_end = None

    def _read_pulse(self) -> Pulse:
        return pulse.read(self._pulse_fd)

    def _former_pulse(self) -> Pulse | None:
        fd = self.request.pins.open(pulse.PIN, bpf.RDONLY)
        if fd is None:
            return None
        with bpf.closing(fd):
            return pulse.read(fd)

    def _make_record(self) -> dict[str, object]:
        """As the other tiers have it; `degraded` says why there is no better one."""
        request, reason = self.request, self.request.verdict.why_no_better
        return {
            "fingerprint": request.spec.fingerprint,
            "spec": request.spec.to_dict(),
            "tier": request.verdict.tier,
            "lifecycle": request.verdict.lifecycle,
            "degraded": reason if len(reason) <= _REASON else reason[: _REASON - 1] + "\u2026",
            "btf_source": None,
            "btf_result": NETLINK,
            "reads": "map calls",
            "kernel": request.facts.kernel,
            "programs": {},
            "tags": {},
            "links": {},
            "maps": {name: bpf.map_info(fd).id for name, fd in self._made.items()},
            "loaded_at": int(time.time()),
            "last_pass": 0,
        }
