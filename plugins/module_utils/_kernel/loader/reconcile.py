# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether flows were missed, as far as that can be told for next to nothing."""

from __future__ import annotations

import platform
import time
from typing import Mapping

from ..bpf import bpf
from ..bpf.bpffs import Pins
from ..conntrack import namespaces
from ..conntrack.layout import COUNTERS_MAP, read_counters
from . import misses, reconciled
from .reconciled import Result, Signs

_COUNT_FILE = "/proc/sys/net/netfilter/nf_conntrack_count"
# Looks at the numbers of flows, and seconds between them
_LOOKS, _PAUSE = 4, 0.05


def signs(record: Mapping[str, object], pins: Pins, last: Result) -> Signs:
    """Read what tells of missed flows. Saves what was missed among the counters, for those who may
    not ask. Raises OSError, and LoaderError where nothing is loaded.
    """
    missed = misses.read(dict(record))
    counters = pins.open(COUNTERS_MAP)
    if counters is not None:
        with bpf.closing(counters):
            misses.save(counters, missed)
    if reconciled.counts_misses(str(record["tier"]), platform.release()):
        return Signs(missed)
    surpluses = []
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        surpluses.append(surplus(pins))
        if surpluses[-1] == last.surplus:
            break
    return Signs(missed, reconciled.nearest(surpluses, last.surplus))


def surplus(pins: Pins) -> int:
    """How many flows the kernel has more than the programs saw come and not go."""
    with bpf.closing(pins.open_map(COUNTERS_MAP)) as counters:
        before = read_counters(counters)
        flows = sum(_flows().values())
    return flows - before["insert_hits"] + before["delete_hits"]


def _flows() -> dict[int, int]:
    found = {}
    for inode, namespace in namespaces.find(descriptors=False).items():
        try:
            found[inode] = namespace.run(_count)
        except (OSError, ValueError):  # gone meanwhile, or without conntrack
            continue
    return found


def _count() -> int:
    with open(_COUNT_FILE, encoding="ascii") as stream:
        return int(stream.read())
