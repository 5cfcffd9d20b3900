# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the state now to a restore point. The tracker's entries are kept on the way.

It takes the same steps as the modules conntrack_object, release and poller_agent, so a step that is
refused leaves what it found, and what is right already is left alone.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import manage
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    config_service,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    file_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release

from . import present
from .points import RestorePoint, TrackerPoint
from .present import Host, Present

_ENCODING = ("utf-8", "surrogateescape")


class Step(NamedTuple):
    """What a part of the host is changed from and to, in the form of a diff."""

    part: str
    before: dict[str, object]
    after: dict[str, object]


def require(host: Host, point: RestorePoint) -> None:
    """Raises HostError if the host lacks what the point needs; then nothing is changed."""
    if point.release is not None and not os.path.isdir(host.releases.folder(point.release)):
        raise HostError(f"the release {point.release} is no more on the host: roll it out again")
    needed = point.object_sha256
    if needed is not None and not host.tracker.store.has_object(needed):
        raise HostError(f"the object {needed[:12]} is no more on the host: roll it out again")
    if point.agent is not None and point.release is None:
        raise HostError("the restore point has a poller agent, but no release to run it")


def reach(host: Host, point: RestorePoint, pinned: frozenset[str], dry: bool) -> list[Step]:
    """Does it (or says what a dry run would do); the steps that there were to take.

    `pinned` has the digests of the objects to keep. Raises HostError and TrackerError.
    """
    require(host, point)
    now = present.read(host)
    steps = []
    if point.agent is None and now.agent != poller_agent.State():
        steps.append(Step("agent", *poller_agent.difference(now.agent, poller_agent.State())))
        if not dry:
            poller_agent.remove(host.agent, host.run)
            # It may have brought the base back into force
            now = now._replace(tracker=manage.read(host.tracker)[0])
    steps += _tracker(host, point.tracker, now, pinned, dry)
    switched = _release(host, point, now, dry)
    steps += switched
    if point.agent is not None:
        steps += _agent(host, point, now, bool(switched), dry)
    return steps


def _tracker(
    host: Host, point: TrackerPoint | None, now: Present, pinned: frozenset[str], dry: bool
) -> list[Step]:
    wanted, wish = "absent", None
    if point is not None:
        spec = Spec.from_dict(point.spec)
        wish = manage.Wish.of(host.tracker, spec, frozenset(point.remote_keys))
        wanted = "loaded" if point.loaded else "installed"
    after = manage.plan(now.tracker, wanted, wish)
    if wanted == "absent" and not host.tracker.store.objects():
        # What a rollout leaves on the disk is no part of a tracker
        after = replace(after, files=now.tracker.files)
    if wanted == "installed":
        after = manage.plan(after, "unloaded", None)
    if after == now.tracker:
        return []
    if not dry:
        manage.reach(host.tracker, wanted, wish, None, pinned)
        if wanted == "installed":
            manage.reach(host.tracker, "unloaded", None, None)
    return [Step("tracker", now.tracker.to_dict(), after.to_dict())]


def _release(host: Host, point: RestorePoint, now: Present, dry: bool) -> list[Step]:
    before = now.release
    if point.release is None:
        in_use = config_service.is_installed(host.releases.units)
        after = release.plan_removal(before, in_use)
        if after != before and not dry:
            release.remove(host.releases, host.run, before, after)
    else:
        units = release.packed_units(host.releases, point.release)
        after = release.plan(before, point.release, len(before.releases), units, point.boot)
        if not point.boot:
            after = release.without_boot_unit(after)
        if after != before and not dry:
            release.reach(host.releases, host.run, before, after)
    return [Step("release", before.to_dict(), after.to_dict())] if after != before else []


def _agent(host: Host, point: RestorePoint, now: Present, switched: bool, dry: bool) -> list[Step]:
    name, before = str(point.release), now.agent
    contents: dict[str, bytes | None] = {
        file: text.encode(*_ENCODING) for file, text in (point.agent or {}).items()
    }
    packed = {
        unit: file_digest(release.packed_unit(host.releases, name, unit))
        for unit in poller_agent.UNITS
    }
    poller_agent.check_release(host.releases, name)
    after = poller_agent.plan(before, contents, packed)
    restart = poller_agent.needs_restart(before, after, switched)
    if before == after and not restart:
        return []
    if not dry:
        poller_agent.note_restart(host.agent)
        poller_agent.reach(
            host.agent, host.releases, host.run, before, after, contents, name, restart
        )
    return [Step("agent", *poller_agent.difference(before, after))]
