# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the last reconciliation found, and whether another one is needed.

Deciding is pure. The result lies in one small file that everybody may read, and that is gone after
a reboot, as the maps are.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Mapping, NamedTuple

from ..conntrack import record_map
from ..store import write_atomically

# The most of the time that reconciling may take
_SHARE = 0.05
# Seconds until it is tried again where it failed; and where flows do not add up, twice as long
# each time that nothing was found
_AGAIN, _SOON, _LONGEST = 60, 20, 3600
# The first kernels that count what they pass over: of tracing programs, of kprobes
_TRACING_COUNTED, _KPROBES_COUNTED = (5, 12), (6, 7)


class Result(NamedTuple):
    """`load` names the load whose maps were reconciled `at` Unix seconds, in `seconds`; `why` it
    was done. `added` and `removed` are entries, `added_ever` and `removed_ever` those since the
    load, in `runs` reconciliations. `error` says why the last one failed.

    What the next decision needs: `last_pass` is the number of the last pass over the live map;
    `missed` and `surplus` are as `Signs` has them at its beginning; `fruitless` counts those in a
    row that were done for the surplus alone and found nothing.
    """

    load: str
    at: int
    seconds: float = 0.0
    why: str = "load"
    added: int = 0
    removed: int = 0
    added_ever: int = 0
    removed_ever: int = 0
    runs: int = 0
    error: str | None = None
    last_pass: int = 0
    missed: Mapping[str, int] = {}
    surplus: int | None = None
    fruitless: int = 0


class Signs(NamedTuple):
    """What tells of flows that were missed. `missed` has the kernel's own counts (see `misses`);
    where it does not count, `surplus` is how many flows it has more than were seen to come and not
    to go.
    """

    missed: Mapping[str, int]
    surplus: int | None = None


def load_of(record: Mapping[str, object]) -> str:
    """Return what names a load: its programs, which no other one has."""
    ids = {**record_map.numbers(record, "programs"), **record_map.numbers(record, "maps")}
    return ",".join(f"{name}:{number}" for name, number in sorted(ids.items()))


def counts_misses(tier: str, release: str) -> bool:
    """Whether a kernel of this release counts what it passes over in this tier."""
    parts = release.replace("-", ".").split(".")[:2]
    if not all(part.isdigit() for part in parts):
        return False
    is_tracing = tier in ("core/fentry", "core/fexit")
    needed = _TRACING_COUNTED if is_tracing else _KPROBES_COUNTED
    return tuple(map(int, parts)) >= needed


def why_needed(last: Result, signs: Signs, now: int) -> str | None:
    """Return why to reconcile now, None if there is no need, or none yet. `last` is of this load:
    where nothing was reconciled since, it says when it was loaded (`new`).
    """
    more = {
        name: number - last.missed.get(name, 0)
        for name, number in signs.missed.items()
        if number > last.missed.get(name, 0)
    }
    idle = now - last.at
    if last.error is not None and idle >= _AGAIN:
        return "the last one failed"
    if more and idle >= last.seconds / _SHARE:
        return ", ".join(f"{name} {number}" for name, number in sorted(more.items()))
    if signs.surplus is None or last.surplus is None:
        return None
    off = signs.surplus - last.surplus
    if off and idle >= min(_SOON * 2**last.fruitless, _LONGEST):
        return f"{abs(off)} flows {'came' if off > 0 else 'went'} unseen"
    return None


def nearest(surpluses: list[int], last: int | None) -> int:
    """Return the surplus that is nearest to the last one: flows that are being made, and those
    whose last packet is on its way, come on top for a moment.
    """
    return min(surpluses, key=lambda number: abs(number - (last or 0)))


def following(last: Result, signs: Signs, why: str, found: Result) -> Result:
    """Return what to keep of a reconciliation: `found` has its own numbers and those up to it."""
    fruitless = 0
    if not found.added and not found.removed and not found.error and why.endswith("unseen"):
        fruitless = last.fruitless + 1
    return found._replace(
        why=why,
        added_ever=last.added_ever + found.added,
        removed_ever=last.removed_ever + found.removed,
        runs=last.runs + 1,
        missed=dict(signs.missed),
        surplus=signs.surplus,
        fruitless=fruitless,
    )


def new(record: Mapping[str, object]) -> Result:
    """Return what there is to say of a load that was not reconciled since: it was, by loading."""
    at = record.get("loaded_at", 0)
    return Result(
        load_of(record),
        at if isinstance(at, int) else 0,
        last_pass=record_map.last_pass(record),
    )


# --- the file -----------------------------------------------------------------------------------


def read(record: Mapping[str, object], path: str) -> Result:
    """Return the last result of what is loaded; a file that is missing, damaged or of another load
    counts for nothing.
    """
    try:
        with open(path, encoding="ascii") as stream:
            found = Result(**json.load(stream))
            if found.load == load_of(record):
                return found
    except (OSError, ValueError, TypeError):
        pass
    return new(record)


def write(result: Result, path: str) -> None:
    """Keep it; raises OSError."""
    write_atomically(path, json.dumps(result._asdict()).encode("ascii") + b"\n")


def forget(path: str) -> None:
    """Remove the file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def to_dict(result: Result) -> dict[str, object]:
    """For people and programs, without what only the next decision needs."""
    hidden = ("load", "last_pass", "missed", "surplus", "fruitless")
    return {name: value for name, value in result._asdict().items() if name not in hidden}
