# SPDX-License-Identifier: GPL-3.0-or-later
"""The running config service: its parts, in the order in which they start and stop."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from typing import Any, Iterator

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from btfleet.service.certificates import Certificates
from btfleet.service.clients import Clients
from btfleet.service.errors import SettingsError
from btfleet.service.fetch import Limits
from btfleet.service.metrics import Metrics
from btfleet.service.refresh import Refresher, RefreshLoop, read_anchors
from btfleet.service.service import NAME, ConfigService, Pool
from btfleet.service.settings import Settings
from btfleet.service.store import Store
from btfleet.service.tokens import TokenFile

logger = logging.getLogger(__name__)

# The interpreter runs one at a time; more only helps against callers that send slowly
THREADS = 32
MAX_CALLS = 20000
MAX_REQUEST_BYTES = 4 << 20
HOUSEKEEPING_SECONDS = 1.0
SWEEP_SECONDS = 5.0
GRACE_SECONDS = 5.0
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # A second service on the same port is a mistake, not a replica
    ("grpc.so_reuseport", 0),
    ("grpc.max_connection_idle_ms", 600000),
    # Hosts keep their connections open by pinging; more often than that is abuse
    ("grpc.http2.min_ping_interval_without_data_ms", 10000),
)


class Daemon:
    """Everything, started by `running`."""

    def __init__(self, settings: Settings, limits: Limits = Limits()) -> None:  # noqa: B008
        """Reads and checks what the settings name; raises a ServiceError."""
        self.settings = settings
        self.metrics = Metrics()
        self._tokens = TokenFile(settings.tokens, lambda error: self._reloaded("tokens", error))
        self._certificates = Certificates(settings.tls, lambda error: self._reloaded("tls", error))
        anchors = read_anchors(settings)
        self._store = Store(settings.state_folder, logger.error)
        try:
            self.refresher = Refresher(settings, self._store, anchors, limits)
        except BaseException:
            self._store.close()
            raise
        self.clients = Clients(settings.client_ttl_seconds)
        self.metrics.watch_clients(self.clients)
        self._health = _Health()
        self._loop = RefreshLoop(self.refresher, settings.refresh_interval_seconds, self._refreshed)
        self._stopped = threading.Event()
        self.port = 0
        self.metrics_port = 0
        self._show()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serves while it lasts, and then lets the calls in progress end; raises SettingsError."""
        pool = Pool(THREADS, thread_name_prefix="poll")
        server = grpc.server(pool, options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        service = ConfigService(
            self.refresher, self._tokens, self.clients, self.metrics, self.settings.enabled
        )
        server.add_generic_rpc_handlers((service,))
        self._health.add_to(server)
        if self.settings.reflection:
            names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        try:
            self.port = server.add_secure_port(
                self.settings.listen, self._certificates.credentials()
            )
        except RuntimeError:
            self.close()
            raise SettingsError(
                f"cannot listen on {self.settings.listen}: free the port, or set another `listen`"
            ) from None
        housekeeping = threading.Thread(target=self._keep_house, name="housekeeping", daemon=True)
        try:
            with self.metrics.served(self.settings.metrics_listen) as self.metrics_port:
                server.start()
                housekeeping.start()
                if self.settings.enabled:
                    self._loop.start()
                try:
                    yield
                finally:
                    self._health.stop()
                    server.stop(GRACE_SECONDS).wait()
                    self._stopped.set()
                    housekeeping.join()
                    if self.settings.enabled:
                        self._loop.stop(GRACE_SECONDS)
        finally:
            pool.shutdown(wait=False)
            self.close()

    def close(self) -> None:
        """Lets go of the store."""
        self._store.close()

    def refresh_now(self) -> None:
        """Refreshes, and reads the tokens and certificates again, soon."""
        self._loop.now()
        self._tokens.reload_if_changed()
        self._certificates.reload_if_changed()

    def _refreshed(self, result: str, seconds: float) -> None:
        self.metrics.refreshes[result].inc()
        self.metrics.refresh_seconds.set(seconds)
        self._show()
        if result == "changed":
            # What is served lives long: collections need not walk through it again and again
            gc.collect()
            gc.freeze()
            snapshot = self.refresher.snapshot
            assert snapshot is not None  # noqa: S101 - it is what has changed
            logger.info(
                "serving targets version %d: %d configs, %d bytes (refresh took %.2f s)",
                snapshot.targets_version,
                snapshot.configs,
                snapshot.size,
                seconds,
            )

    def _show(self) -> None:
        """What metrics and health say of the snapshot, the tokens and the certificate."""
        snapshot = self.refresher.snapshot
        if snapshot is not None:
            self.metrics.show_snapshot(snapshot)
        self.metrics.refreshed_at.set(self.refresher.refreshed_at)
        self.metrics.tokens.set(len(self._tokens))
        self.metrics.certificate_expires.set(self._certificates.pair.expires)
        self._health.set(snapshot is not None and self.settings.enabled)

    def _reloaded(self, file: str, error: str | None) -> None:
        self.metrics.reloads[file, "refused" if error else "taken"].inc()
        if error:
            logger.error("%s stay as they were: %s", file, error)
            return
        logger.info("%s were read again", file)
        self.metrics.tokens.set(len(self._tokens))
        self.metrics.certificate_expires.set(self._certificates.pair.expires)

    def _keep_house(self) -> None:
        swept = time.monotonic()
        while not self._stopped.wait(HOUSEKEEPING_SECONDS):
            self._tokens.reload_if_changed()
            self._certificates.reload_if_changed()
            if time.monotonic() - swept >= SWEEP_SECONDS:
                swept = time.monotonic()
                self.clients.sweep(time.time(), frozenset(self._tokens.host_names))


class _Health:
    """grpc.health.v1, which needs no token, on threads of its own."""

    def __init__(self) -> None:
        self._pool = Pool(2, thread_name_prefix="health")
        self._servicer = health.HealthServicer(experimental_thread_pool=self._pool)

    def add_to(self, server: grpc.Server) -> None:
        """Registers it."""

        def check(
            request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
        ) -> health_pb2.HealthCheckResponse:
            return self._servicer.Check(request, context)

        check.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(
                check,
                health_pb2.HealthCheckRequest.FromString,
                health_pb2.HealthCheckResponse.SerializeToString,
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._servicer.Watch,
                health_pb2.HealthCheckRequest.FromString,
                health_pb2.HealthCheckResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(health.SERVICE_NAME, handlers),)
        )

    def set(self, serving: bool) -> None:
        """Whether polls are answered from verified configs."""
        names = health_pb2.HealthCheckResponse
        for service in ("", NAME):
            self._servicer.set(service, names.SERVING if serving else names.NOT_SERVING)

    def stop(self) -> None:
        """Not serving any more; those who watch are told."""
        self._servicer.enter_graceful_shutdown()
        self._pool.shutdown(wait=False)
