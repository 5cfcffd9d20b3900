# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the installed object in the way that a measurement needs."""

from __future__ import annotations

from dataclasses import replace

from btfleet.kernel.spec import Spec
from btfleet.kernel.store import Store
from btfleet.kernel.tracker import Tracker

KPROBE, FENTRY = "core/kprobe", "core/fentry"


def installed_spec() -> Spec:
    """The spec that the rollout left."""
    spec = Store().read_spec()
    if spec is None:
        raise RuntimeError("nothing is installed on this guest: roll out first")
    return spec


def load(tier: str | None = None, **settings: object) -> None:
    """Brings the installed spec, with these settings, into the kernel.

    A guest of the lab may run fentry where detaching could deadlock it.
    """
    wanted: dict[str, object] = dict(settings)
    if tier:
        wanted |= {"tiers": (tier,), "allow_fentry_deadlock": tier == FENTRY}
    Tracker().load(replace(installed_spec(), **wanted))  # type: ignore[arg-type]


def unload() -> None:
    """No tracker at all."""
    Tracker().unload()
