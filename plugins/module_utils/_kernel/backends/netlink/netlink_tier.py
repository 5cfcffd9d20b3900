# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a load of the tier netlink makes: the same maps as the object's, and their record."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Mapping

from ...bpf import bpf
from ...conntrack.layout import CLOSED, LIVE, SHAPES, sizes
from ...host.facts import Facts
from ...host.support import Verdict
from ...spec import NETLINK, Spec
from .. import seed

# The record has room for so much of the reasons
_REASON = 1500


def prepare_maps(
    spec: Spec, old: Mapping[str, int], fitting: set[str], stack: ExitStack
) -> tuple[dict[str, int], dict[str, int]]:
    """The maps to use, and those of the tracker so far that they replace, with the same entries."""
    made, replaced = {}, {}
    for name, size in sizes(spec.max_entries, spec.closed_entries).items():
        if name in fitting:
            made[name] = old[name]
            continue
        shape = SHAPES[name]
        fd = bpf.map_create(shape.type, shape.key_size, shape.value_size, size, name)
        stack.callback(os.close, fd)
        made[name] = fd
        if name in old and name in (LIVE, CLOSED):
            replaced[name] = old[name]
            seed.MapCalls().copy(old[name], fd)
    return made, replaced


def make_record(
    spec: Spec, verdict: Verdict, facts: Facts, maps: Mapping[str, int]
) -> dict[str, object]:
    """As the tracker's other tiers have it; `degraded` says why there is no better one."""
    reason = verdict.why_no_better
    return {
        "fingerprint": spec.fingerprint,
        "spec": spec.to_dict(),
        "tier": verdict.tier,
        "lifecycle": verdict.lifecycle,
        "degraded": reason if len(reason) <= _REASON else reason[: _REASON - 1] + "\u2026",
        "btf_source": None,
        "btf_result": NETLINK,
        "reads": "map calls",
        "kernel": facts.kernel,
        "programs": {},
        "tags": {},
        "links": {},
        "maps": {name: bpf.map_info(fd).id for name, fd in maps.items()},
        "loaded_at": int(time.time()),
        "last_pass": 0,
    }
