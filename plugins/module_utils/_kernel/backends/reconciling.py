# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reconciling the maps of the tracker that runs: the initial sync again, by the same programs."""

from __future__ import annotations

from ..bpf import bpf
from ..conntrack import record_map
from ..conntrack.layout import HAS_CLOSED, SHAPES
from ..errors import LoaderError
from . import seed
from .base import Request
from .programs import Programs


class Reconciling(Programs):
    """What runs is left alone: only the programs of the sync are loaded, on its maps."""

    def __init__(self, request: Request, content: bytes) -> None:
        super().__init__(request, content)
        self._probes = ()

    def run(self, seconds: float) -> seed.Reconciled:
        """Do it, within `seconds`. Raises a TrackerError or an OSError; what is right by then is
        done.
        """
        self.prepare()
        if self._replaced:
            raise LoaderError(
                "the maps are not as they were loaded: load it again (`btfleet load`)"
            )
        fds = {name: self._object.map_fd(name) for name in SHAPES}
        self._expect_closed()
        self._seeding.attach(self._object, self._facts.symbols)
        try:
            reconciler = seed.Reconciler(fds, self._maps, self._portid, seconds)
            return reconciler.run(self.request.last_pass)
        finally:
            self._object.detach(self._seeding.program)

    def _expect_closed(self) -> None:
        """Tell the programs that run that there may be closed flows: they look for none before one
        of them has closed a flow.
        """
        for number in record_map.probe_roles(self.request.former).values():
            with bpf.closing(bpf.fd_by_id(bpf.PROG_GET_FD_BY_ID, number)) as program:
                maps = bpf.prog_info(program).map_ids
            for each in maps:
                with bpf.closing(bpf.fd_by_id(bpf.MAP_GET_FD_BY_ID, each)) as fd:
                    if bpf.map_info(fd).name.endswith(".bss"):
                        bpf.map_update(fd, bytes(4), HAS_CLOSED.pack(True))
