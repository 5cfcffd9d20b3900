# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host, each thing once. All input of the verdict is here, and in what is called here."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Iterator, Mapping, TypeVar

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import (
    effective_load,
    remote,
    status,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.status import Status
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    agent_state,
    config_state,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.agent_state import (
    StateUnreadable,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import (
    AssetReadError,
    InvalidSpec,
    TrackerError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host import facts
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader import access
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker as KernelTracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release

from . import certificates, clock, file_access, units
from .certificates import NotACertificate, Validity
from .host import Agent, Host, Tracker, Traffic

_FLOWS = "/proc/sys/net/netfilter/nf_conntrack_count"
_HITS = ("insert_hits", "delete_hits")
# Seconds: what a writer leaves is younger while it writes
_WRITING = 60

_T = TypeVar("_T")


class Places:
    """Where things lie; other places are for tests."""

    def __init__(self) -> None:
        self.tracker = KernelTracker()
        self.releases = release.Layout()
        self.agent = poller_agent.Layout()


def gather(run: Runner, now: float, places: Places | None = None) -> Host:
    """All of it. What cannot be read is named in `unread`."""
    places = places or Places()
    unread: dict[str, str] = {}

    def attempt(part: str, reading: Callable[[], _T]) -> _T | None:
        try:
            return reading()
        except (HostError, TrackerError, OSError) as exc:
            unread[part] = " ".join(str(exc).split())
            return None

    # The two looks at the traffic have all the rest between them
    before = _look(places.tracker)
    releases = attempt("releases", lambda: release.read_releases(places.releases))
    current = releases.current if releases else None
    kernel = attempt("facts", lambda: facts.gather(_btf_path(places.tracker.store)))
    found_units = attempt("units", lambda: units.read(run, places.releases, current))
    agent = attempt("agent", lambda: _agent(run, places, now, unread))
    found_access = attempt(
        "access",
        lambda: file_access.read(places.tracker.store, places.releases, places.agent, current),
    )
    unfinished = attempt("unfinished", lambda: tuple(_unfinished(places, now)))
    return Host(
        now=now,
        facts=kernel,
        tracker=attempt("tracker", lambda: _tracker(places.tracker, before, unread)),
        releases=releases,
        units=found_units,
        access=found_access,
        unfinished=unfinished,
        agent=agent,
        clock=attempt("clock", clock.read),
        unread=unread,
    )


# --- tracker --------------------------------------------------------------------------------------


def _look(tracker: KernelTracker) -> tuple[int, int] | None:
    """Hits, then flows."""
    with contextlib.suppress(TrackerError, OSError, ValueError):
        hits = _hits(status.read(tracker.active, tracker.store, fill=False))
        if hits is not None:
            return hits, _flows()
    return None


def _hits(found: Status) -> int | None:
    return sum(found.counters[name] for name in _HITS) if found.counters else None


def _flows() -> int:
    with open(_FLOWS, encoding="ascii") as stream:
        return int(stream.read())


def _tracker(
    tracker: KernelTracker, before: tuple[int, int] | None, unread: dict[str, str]
) -> Tracker:
    store = tracker.store
    flows = None
    with contextlib.suppress(OSError, ValueError):
        flows = _flows()
    try:
        found = status.read(tracker.active, tracker.store)
    except (OSError, TrackerError) as exc:  # a foreign pin in an iterator's place cannot be read
        unread["fill"] = " ".join(str(exc).split())
        found = status.read(tracker.active, tracker.store, fill=False)
    hits = _hits(found)
    traffic = None
    if before and flows is not None and hits is not None:
        traffic = Traffic(before[1], flows, before[0], hits)
    spec, effective = None, None
    allowed: frozenset[str] = frozenset()
    try:
        spec = store.read_spec()
        allowed = remote.read_allowed(store)
        effective = effective_load.choose(store, spec) if spec else None
    except InvalidSpec as exc:
        unread["spec"] = str(exc)
    gid = access.group_id()
    wrong = access.wrong(tracker.folder, gid)
    mount = os.path.dirname(tracker.folder)
    return Tracker(
        status=found,
        pins=tuple(tracker.pins.names()),
        spec=spec,
        effective=effective,
        allowed=allowed,
        objects={sha256: _object(store, sha256) for sha256 in _asked(spec, found)},
        denied=tuple(os.path.basename(one.path) for one in wrong if one.path != mount),
        mount_denied=next(
            (f"group {one.gid}, mode {one.mode:04o}" for one in wrong if one.path == mount), None
        ),
        traffic=traffic,
    )


def _btf_path(store: Store) -> str | None:
    with contextlib.suppress(InvalidSpec, OSError):
        spec = store.read_spec()
        return spec.btf_path if spec else None
    return None


def _asked(spec: Spec | None, found: Status) -> set[str]:
    """The digests of the objects that the spec file and the loaded spec ask for."""
    loaded = found.record["spec"] if found.record else None
    asked = {spec.object_sha256} if spec else set()
    if isinstance(loaded, dict) and isinstance(loaded.get("object_sha256"), str):
        asked.add(loaded["object_sha256"])
    return asked


def _object(store: Store, sha256: str) -> str | None:
    try:
        store.read_object(sha256)
    except AssetReadError as exc:
        return str(exc)
    return None


# --- agent ----------------------------------------------------------------------------------------


def _agent(run: Runner, places: Places, now: float, unread: dict[str, str]) -> Agent:
    layout = places.agent
    paths = [os.path.join(layout.units, poller_agent.UNIT), layout.file(poller_agent.SETTINGS)]
    if not any(map(os.path.lexists, paths)):
        return Agent()
    settings = agent_state.read_settings(paths[1])
    command = os.path.join(places.releases.current, "bin", "btfleet")
    answer, problem = agent_state.ask(run, command)
    if answer and not answer.get("running") and os.path.lexists(layout.runtime):
        # It has just been started, or the host has much to do: once more, before that is a finding
        answer, problem = agent_state.ask(run, command)
    if problem:
        unread["answer"] = problem
    stored, configs = config_state.Stored(), []
    try:
        folder = settings.get("state_folder") or layout.state
        stored = agent_state.read_stored(os.path.join(folder, "state.db"))
        configs = config_state.configs(stored, config_state.Host.of(settings), int(now))
    except (StateUnreadable, ConfigError) as exc:
        unread["configs"] = str(exc)
    token = settings.get("token_file") or layout.file(poller_agent.TOKEN)
    return Agent(
        installed=True,
        restart_due=os.path.lexists(layout.restart_due),
        answer=answer or {},
        summary=config_state.agent_summary(answer, int(now)),
        disagreements=tuple(config_state.disagreements(configs, stored.expired, int(now))),
        token_changed_at=os.stat(token).st_mtime if os.path.exists(token) else None,
        certificates=dict(_certificates(settings, layout, unread)),
    )


def _certificates(
    settings: Mapping[str, Any], layout: poller_agent.Layout, unread: dict[str, str]
) -> Iterator[tuple[str, tuple[Validity, ...]]]:
    own = settings.get("client_certificate")
    for path in filter(None, (settings.get("ca") or layout.file(poller_agent.CA), own)):
        try:
            with open(path, "rb") as stream:
                yield path, certificates.read_pem(stream.read())
        except OSError as exc:
            unread[path] = f"cannot read {path} ({exc.strerror})"
        except NotACertificate as exc:
            unread[path] = f"{path}: {exc}"


# --- leftovers ------------------------------------------------------------------------------------


def _unfinished(places: Places, now: float) -> Iterator[str]:
    """What killed writers have left; not what somebody may be writing right now."""
    pins, releases = places.tracker.pins, places.releases
    paths = [pins.path(name) for name in pins.unfinished()]
    paths += places.tracker.store.unfinished()
    folders = (
        *(releases.root, releases.releases, releases.units, os.path.dirname(releases.command)),
        *(places.agent.etc, places.agent.state),
    )
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            paths += [os.path.join(folder, name) for name in os.listdir(folder) if _is_draft(name)]
    for path in sorted(set(paths)):
        with contextlib.suppress(FileNotFoundError):
            if abs(now - os.lstat(path).st_mtime) > _WRITING:
                yield path


def _is_draft(name: str) -> bool:
    """As `write_atomically`, `release.unpack`, and the writers of links and units name theirs."""
    return name.startswith((".btfleet-", ".unpack-")) or name.endswith(".btfleet-new")
