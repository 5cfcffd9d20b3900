# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus metrics of the agent and of the tracker, read when they are asked for."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from btfleet import __version__
from btfleet._config import paths
from btfleet._kernel.backends.netlink.pulse import Pulse
from btfleet._kernel.conntrack.record_map import is_followed
from btfleet._kernel.errors import TrackerError
from btfleet._kernel.loader import reconciled
from btfleet._kernel.loader.reconciled import Result
from btfleet._kernel.loader.state import Active
from btfleet.poller.loop import PollStats
from btfleet.poller.maps import Maps
from btfleet.poller.states import APPLIED, APPLYING, FAILED, RECEIVED, ApplyState, phase_name
from btfleet.poller.verify import Trusted

log = logging.getLogger(__name__)

PHASES = (RECEIVED, APPLYING, APPLIED, FAILED)


class Snapshot(NamedTuple):
    """What the agent knows at one moment."""

    stats: PollStats
    poll_interval: float
    trusted: Trusted
    expired: bool
    healthy: bool
    states: Iterable[ApplyState]
    busy: Mapping[str, float]
    token_file: str


class AgentCollector(Collector):
    """Reads the agent's state and the tracker's maps at each scrape."""

    def __init__(self, snapshot: Callable[[], Snapshot], maps: Maps) -> None:
        self._snapshot = snapshot
        self._maps = maps
        # Two scrapes at a time would both count the maps' entries
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would read the maps to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families."""
        snapshot = self._snapshot()
        yield _labelled("btfleet_agent_build_info", "Version of the agent.", version=__version__)
        yield from _polls(snapshot)
        yield from _versions(snapshot)
        yield from _configs(snapshot)
        with self._lock:
            yield from self._tracker()

    def _tracker(self) -> Iterator[Metric]:
        try:
            record = self._maps.record()
            counters = self._maps.counters() if record else {}
            fills = self._maps.fills() if record else {}
            found = self._maps.pulse() if is_followed(record) else None
        except (OSError, TrackerError) as exc:
            log.debug("the tracker cannot be read: %s", exc)
            record, counters, fills, found = None, {}, {}, None
        yield _gauge("btfleet_tracker_loaded", "Whether a tracker can be read.", bool(record))
        if record is None:
            return
        yield _gauge(
            "btfleet_tracker_degraded",
            "Whether a process keeps the table, since nothing may be loaded.",
            is_followed(record),
        )
        if is_followed(record):
            yield from _follower(found)
        else:
            yield from _reconciled(reconciled.read(record, Active().reconciled_path))
        yield _labelled(
            "btfleet_tracker_info",
            "The tracker that is loaded.",
            fingerprint=str(record.get("fingerprint")),
            tier=str(record.get("tier")),
            lifecycle=str(record.get("lifecycle")),
        )
        yield _gauge(
            "btfleet_tracker_loaded_timestamp_seconds",
            "When it was loaded.",
            float(str(record.get("loaded_at", 0))),
        )
        entries = GaugeMetricFamily(
            "btfleet_tracker_map_entries", "Entries in a map; a flow takes two.", labels=["map"]
        )
        sizes = GaugeMetricFamily(
            "btfleet_tracker_map_max_entries", "Room in a map.", labels=["map"]
        )
        for state, fill in fills.items():
            entries.add_metric([state], fill.entries)
            sizes.add_metric([state], fill.max_entries)
        yield entries
        yield sizes
        events = CounterMetricFamily(
            "btfleet_tracker_events",
            "The object's counters, misses and drops among them.",
            labels=["event"],
        )
        for name, value in counters.items():
            events.add_metric([name], value)
        yield events


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _labelled(name: str, text: str, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _follower(found: Pulse | None) -> Iterator[Metric]:
    found = found or Pulse()
    yield _gauge(
        "btfleet_follower_alive",
        "Whether a process follows conntrack events.",
        found.is_alive(),
    )
    yield _gauge(
        "btfleet_follower_namespaces", "Network namespaces that it follows.", found.namespaces
    )
    unfollowed = GaugeMetricFamily(
        "btfleet_follower_unfollowed_namespaces",
        "Those whose flows are not seen (no_descriptor, no_entry), or late (no_events).",
        labels=["reason"],
    )
    for reason in ("no_descriptor", "no_entry", "no_events"):
        unfollowed.add_metric([reason], getattr(found, reason))
    yield unfollowed
    for name, text, value in (
        ("events", "Conntrack events.", found.events),
        ("overruns", "Losses of events, each made good by a comparison.", found.overruns),
        ("comparisons", "Comparisons with a namespace's table.", found.comparisons),
        ("repaired", "Entries of flows that had ended unannounced.", found.repaired),
    ):
        yield CounterMetricFamily(f"btfleet_follower_{name}", text, value=value)


def _reconciled(found: Result) -> Iterator[Metric]:
    yield _gauge(
        "btfleet_tracker_reconciled_timestamp_seconds",
        "When the maps were last reconciled with the kernel's table.",
        found.at,
    )
    yield _gauge(
        "btfleet_tracker_reconcile_failed",
        "Whether the last reconciliation failed.",
        found.error is not None,
    )
    yield CounterMetricFamily(
        "btfleet_tracker_reconciliations",
        "Reconciliations since the load.",
        value=found.runs,
    )
    entries = CounterMetricFamily(
        "btfleet_tracker_reconciled_entries",
        "Entries that reconciliations have added and removed since the load.",
        labels=["kind"],
    )
    entries.add_metric(["added"], found.added_ever)
    entries.add_metric(["removed"], found.removed_ever)
    yield entries


def _polls(snapshot: Snapshot) -> Iterator[Metric]:
    stats = snapshot.stats
    yield CounterMetricFamily("btfleet_agent_polls", "Polls.", value=stats.polls)
    failed = CounterMetricFamily(
        "btfleet_agent_failed_polls", "Polls that failed, by kind.", labels=["kind"]
    )
    for kind, count in sorted(dict(stats.failures).items()):
        failed.add_metric([kind], count)
    yield failed
    yield _gauge("btfleet_agent_last_poll_timestamp_seconds", "The last poll.", stats.last_poll_at)
    yield _gauge(
        "btfleet_agent_last_success_timestamp_seconds",
        "The last poll that succeeded.",
        stats.last_success_at,
    )
    yield _gauge(
        "btfleet_agent_poll_interval_seconds", "Time between polls.", snapshot.poll_interval
    )
    yield _gauge(
        "btfleet_agent_polling_ended", "Whether the service has ended polling.", stats.ended
    )
    yield _gauge("btfleet_agent_healthy", "Whether all components are well.", snapshot.healthy)
    try:
        age = time.time() - os.stat(snapshot.token_file).st_mtime
    except OSError:
        return
    yield _gauge("btfleet_agent_token_age_seconds", "Since the token was deployed.", max(age, 0))


def _versions(snapshot: Snapshot) -> Iterator[Metric]:
    trusted = snapshot.trusted
    yield _gauge("btfleet_agent_root_version", "Newest trusted root.", trusted.root_version)
    yield _gauge(
        "btfleet_agent_root_expiry_timestamp_seconds",
        "When the root expires.",
        trusted.root.expires.timestamp(),
    )
    yield _gauge(
        "btfleet_agent_expired",
        "Whether the service says that the director expired.",
        snapshot.expired,
    )
    if trusted.targets is not None:
        yield _gauge(
            "btfleet_agent_targets_version", "Newest verified targets.", trusted.targets.version
        )
        yield _gauge(
            "btfleet_agent_targets_expiry_timestamp_seconds",
            "When the targets expire.",
            trusted.targets.expires,
        )


def _configs(snapshot: Snapshot) -> Iterator[Metric]:
    version = GaugeMetricFamily(
        "btfleet_agent_config_version", "Version of a config.", labels=["product", "path"]
    )
    phase = GaugeMetricFamily(
        "btfleet_agent_config_phase",
        "1 for the phase that a config is in.",
        labels=["product", "path", "phase"],
    )
    for state in snapshot.states:
        product = paths.parse(state.path).product
        version.add_metric([product, state.path], state.version)
        for each in PHASES:
            phase.add_metric([product, state.path, phase_name(each)], each == state.phase)
    yield version
    yield phase
    busy = GaugeMetricFamily(
        "btfleet_agent_listener_busy_seconds",
        "How long a product's listener has been at it; 0 if it waits.",
        labels=["product"],
    )
    for product, seconds in snapshot.busy.items():
        busy.add_metric([product], seconds)
    yield busy


class MetricsServer:
    """Metrics over HTTP, which can be switched on and off."""

    def __init__(self, address: tuple[str, int], collector: AgentCollector) -> None:
        self._address = address
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._running: tuple[WSGIServer, threading.Thread] | None = None

    @property
    def port(self) -> int | None:
        """Where it listens, None if it does not."""
        return self._running[0].server_port if self._running else None

    def start(self) -> None:
        """Listens; raises OSError."""
        if self._running is None:
            host, port = self._address
            self._running = start_http_server(port, host, self._registry)

    def stop(self) -> None:
        """Does not listen any more."""
        if self._running is not None:
            server, thread = self._running
            self._running = None
            server.shutdown()
            server.server_close()
            thread.join()
