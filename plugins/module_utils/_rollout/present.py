# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as a rollout finds it, and as a restore point."""

from __future__ import annotations

import os
from typing import NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import manage
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release

from .points import RestorePoint, TrackerPoint


class Host(NamedTuple):
    """How to reach the parts of a host. Without systemd there is neither boot unit nor agent."""

    run: Runner
    tracker: Tracker
    releases: release.Layout
    agent: poller_agent.Layout
    has_systemd: bool = True

    @classmethod
    def of(cls, run: Runner) -> Host:
        """With everything where it always lies."""
        booted = os.path.isdir("/run/systemd/system")  # sd_booted(3)
        return cls(run, Tracker(), release.Layout(), poller_agent.Layout(), booted)


class Present(NamedTuple):
    """The state now, part by part."""

    tracker: manage.State
    release: release.State
    agent: poller_agent.State

    @property
    def has_agent(self) -> bool:
        """Whether the poller agent is installed."""
        return self.agent.units[poller_agent.UNIT].digest is not None


def read(host: Host) -> Present:
    """Reads it all."""
    tracker = manage.read(host.tracker)[0]
    if not host.has_systemd:
        return Present(tracker, release.read_releases(host.releases), poller_agent.State())
    return Present(
        tracker,
        release.read(host.releases, host.run),
        poller_agent.read(host.agent, host.run),
    )


def as_point(host: Host, present: Present, at: int) -> RestorePoint:
    """The restore point that leads back to the state now."""
    spec = present.tracker.spec_file
    loaded = present.tracker.loaded is not None
    return RestorePoint(
        release=present.release.current,
        boot=present.release.unit is not None,
        tracker=TrackerPoint(spec, present.tracker.remote_keys, loaded) if spec else None,
        agent=_agent_files(host.agent) if present.has_agent else None,
        at=at,
    )


def _agent_files(layout: poller_agent.Layout) -> dict[str, str]:
    texts = {}
    for name in poller_agent.FILES:
        if os.path.exists(layout.file(name)):
            with open(layout.file(name), encoding="utf-8", errors="surrogateescape") as stream:
                texts[name] = stream.read()
    return texts


def why_unfit(present: Present) -> str | None:
    """Why the state now is none to return to, None if it is one. Pure."""
    tracker = present.tracker
    if tracker.drift:
        return f"the tracker is not as it was loaded ({'; '.join(tracker.drift)})"
    if tracker.loaded is not None and tracker.spec_file is None:
        return "a tracker is loaded, but its spec file is missing or damaged"
    if tracker.spec_file is not None and tracker.object_file is None:
        return "the object of the spec file is missing or damaged"
    if present.has_agent:
        missing = [name for name, file in present.agent.files.items() if file.digest is None]
        if missing:
            return f"the poller agent has no {', '.join(missing)}"
        if not present.agent.units[poller_agent.UNIT].active:
            return f"{poller_agent.UNIT} does not run"
    return None
