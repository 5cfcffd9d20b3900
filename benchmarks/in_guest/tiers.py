# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the installed object in the way that a measurement needs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from btfleet._kernel.loader.tracker import Tracker
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store

SPEC_FILE = Path("/run/btfleet-bench.json")
KPROBE, FENTRY = "core/kprobe", "core/fentry"


def installed_spec() -> Spec:
    """The spec that the rollout left."""
    spec = Store().read_spec()
    if spec is None:
        raise RuntimeError("nothing is installed on this guest: roll out first")
    return spec


def load(tier: str | None = None, **settings: object) -> None:
    """Brings the installed spec, with these settings, into the kernel, as the boot unit does.

    A guest of the lab may run fentry where detaching could deadlock it.
    """
    wanted: dict[str, object] = dict(settings)
    if tier:
        wanted |= {"tiers": (tier,), "allow_fentry_deadlock": tier == FENTRY}
    spec = replace(installed_spec(), **wanted)  # type: ignore[arg-type]
    SPEC_FILE.write_text(spec.to_json())
    done = subprocess.run(
        ["btfleet", "load", "--spec", str(SPEC_FILE)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def unload() -> None:
    """No tracker at all."""
    Tracker().unload()
