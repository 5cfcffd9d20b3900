# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus can ask for. docs/config-service.md lists it."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    start_http_server,
)

from btfleet import __version__
from btfleet._config.catalogue import PRODUCTS
from btfleet.service.clients import Clients
from btfleet.service.errors import REASONS, SettingsError
from btfleet.service.settings import split_address
from btfleet.service.snapshot import Snapshot

POLL_RESULTS = (
    "up_to_date",
    "full",
    "expired",
    "busy",
    "invalid_argument",
    "unauthenticated",
    "permission_denied",
    "unavailable",
    "failed_precondition",
    "unimplemented",
    "internal",
)
REFRESH_RESULTS = ("changed", "unchanged", *REASONS, "internal")
_SECONDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class Metrics:
    """All of it, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "btfleet_config_service"
        polls = self._counter(f"{name}_polls", "Polls by result", "result")
        self.polls = {result: polls.labels(result) for result in POLL_RESULTS}
        self.poll_seconds = Histogram(
            f"{name}_poll_seconds",
            "Time to answer a poll, without transport",
            buckets=_SECONDS,
            registry=self.registry,
        )
        failures = self._counter(
            f"{name}_failed_authentications", "Calls without a good token by result", "result"
        )
        self.failed_authentications = {
            result: failures.labels(result) for result in ("refused", "limited")
        }
        refreshes = self._counter(f"{name}_refreshes", "Refreshes by result", "result")
        self.refreshes = {result: refreshes.labels(result) for result in REFRESH_RESULTS}
        self.refresh_seconds = self._gauge(f"{name}_refresh_seconds", "Duration of the last one")
        self.refreshed_at = self._gauge(
            f"{name}_refreshed_timestamp_seconds", "When a refresh last succeeded, 0: never"
        )
        self.clients = self._gauge(f"{name}_clients", "Clients heard within the TTL")
        self.client_products = self._gauge(
            f"{name}_client_products", "Clients that ask for a product", "product"
        )
        self.versions = self._gauge(
            f"{name}_metadata_version", "Versions that are served", "repository", "role"
        )
        self.expiries = self._gauge(
            f"{name}_metadata_expires_timestamp_seconds",
            "When metadata expire",
            "repository",
            "role",
        )
        self.configs = self._gauge(f"{name}_snapshot_configs", "Configs in the snapshot")
        self.snapshot_bytes = self._gauge(f"{name}_snapshot_bytes", "Size of the snapshot")
        reloads = self._counter(
            f"{name}_reloads", "Readings of changed files by result", "file", "result"
        )
        self.reloads = {
            (file, result): reloads.labels(file, result)
            for file in ("tokens", "tls")
            for result in ("taken", "refused")
        }
        self.tokens = self._gauge(f"{name}_tokens", "Token hashes in force")
        self.certificate_expires = self._gauge(
            f"{name}_certificate_expires_timestamp_seconds", "When the TLS certificate expires"
        )
        Info(f"{name}_build", "The release", registry=self.registry).info({"version": __version__})

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Versions, expiries and size."""
        for repository, states in snapshot.file_states.items():
            for file, state in states.items():
                role = file.rpartition(".")[0]
                self.versions.labels(repository, role).set(state.version)
                self.expiries.labels(repository, role).set(snapshot.chain_expires[repository][role])
        self.configs.set(snapshot.configs)
        self.snapshot_bytes.set(snapshot.size)

    def watch_clients(self, clients: Clients) -> None:
        """How many, and what they ask for, counted when somebody asks.

        Unknown products are none of Prometheus's business.
        """

        def live(product: str | None = None) -> int:
            return clients.count(time.time(), product)

        self.clients.set_function(live)
        for product in PRODUCTS:
            self.client_products.labels(product).set_function(functools.partial(live, product))

    @contextlib.contextmanager
    def served(self, address: str) -> Iterator[int]:
        """Serves them over HTTP while it lasts, and yields the port; raises SettingsError."""
        if not address:
            yield 0
            return
        host, port = split_address(address)
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as exc:
            raise SettingsError(
                f"cannot listen on metrics_listen {address} ({exc.strerror}): "
                "free the port, or set another one (empty: none)"
            ) from None
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)
