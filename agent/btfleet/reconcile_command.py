# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet reconcile`: brings the maps to what the kernel has; by a timer, if flows were missed."""

from __future__ import annotations

import argparse
import json
import os
import time

from btfleet._kernel.conntrack.record_map import is_followed
from btfleet._kernel.loader import lock, reconcile, reconciled
from btfleet._kernel.loader.reconciled import Result
from btfleet._kernel.loader.state import Active

# Whatever else this host does comes first
_NICE = 15


def run(options: argparse.Namespace) -> int:
    """Exit code 0 if the maps are right now, or, with --if-needed, if nothing is to be done."""
    os.nice(_NICE)
    active = Active()
    record = active.read_record()
    if record is not None and is_followed(record):
        if not options.if_needed:
            print("nothing to do: the process of the tier netlink compares by itself")
        return 0
    why = _why(active) if options.if_needed else "asked for"
    if why is None:
        return 0
    # Late: most often there is nothing to do, twice a minute
    from btfleet._kernel.loader.load import Tracker  # noqa: PLC0415

    result = Tracker().reconcile(why)
    print(json.dumps(reconciled.to_dict(result)) if options.json else describe(result), flush=True)
    return 0


def describe(result: Result) -> str:
    """The line for a person."""
    return (
        f"reconciled ({result.why}): {result.added} entries added, {result.removed} removed, "
        f"in {result.seconds:.1f} s" + (f"; {result.error}" if result.error else "")
    )


def _why(active: Active) -> str | None:
    """Why flows have to be looked for now; None where nothing is to be done, or can be."""
    loaded = active.read()
    if loaded.record is None or loaded.drift or lock.is_held(active.lock_path):
        return None
    last = reconciled.read(loaded.record, active.reconciled_path)
    signs = reconcile.signs(loaded.record, active.pins, last)
    why = reconciled.why_needed(last, signs, int(time.time()))
    if why is None and last.surplus is None and signs.surplus is not None:
        # What later numbers are compared with
        reconciled.write(last._replace(surplus=signs.surplus), active.reconciled_path)
    return why
