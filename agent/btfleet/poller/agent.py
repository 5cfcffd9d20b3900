# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent put together: what is held, who is told, and what is said of it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from typing import IO, Callable

import grpc

from btfleet import __version__
from btfleet._kernel.backends.netlink import pulse
from btfleet._kernel.bpf.bpffs import FOLDER
from btfleet._kernel.conntrack.record_map import is_followed
from btfleet._kernel.errors import TrackerError
from btfleet._kernel.store import Store
from btfleet.agent.v1 import agent_pb2
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import request, verify
from btfleet.poller.agent_product import AgentProduct
from btfleet.poller.conntrack_product import ConntrackProduct
from btfleet.poller.errors import SettingsError, StorageError, UpdateRefused
from btfleet.poller.listener import Handler, Listener
from btfleet.poller.local_service import AgentService, serve
from btfleet.poller.log_limit import LogLimit
from btfleet.poller.loop import PollLoop, Wishes
from btfleet.poller.maps import Maps
from btfleet.poller.metrics import AgentCollector, MetricsServer, Snapshot
from btfleet.poller.repository import StateRepository
from btfleet.poller.request import Value
from btfleet.poller.service_channel import ServiceChannel
from btfleet.poller.settings import Settings, read, split_address
from btfleet.poller.states import StateBook
from btfleet.poller.verify import Host, Stored, Trusted

log = logging.getLogger(__name__)

# Seconds
CLOSE_TIMEOUT = 2.0
STUCK = 120.0

WANTED = "wanted.json"
_LOCK = "lock"
_UNFINISHED = ".btfleet-"


class Agent:
    """One agent. `run` returns when `stop` is called, from any thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store | None = None,
        pins: str = FOLDER,
        now: Callable[[], float] = time.time,
        on_state_change: Callable[[bool], None] = lambda _up: None,
    ) -> None:
        """Raises SettingsError and StorageError; nothing runs yet."""
        self.settings = settings
        self.host = Host(settings.facts, settings.products, settings.org)
        self.started_at = int(now())
        self._now = now
        self._store = store or Store(wanted_path=os.path.join(settings.state_folder, WANTED))
        self._first_root = _first_root(settings.director_root)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_lock_folder(settings.state_folder))
            self._repository = StateRepository(settings.state_folder)
            stack.callback(self._repository.close)
            stored, states = self._repository.load(), self._repository.load_states()
            self._held = stack.pop_all()
        if self._repository.damage:
            log.warning(
                "%s was no state (%s): it was set aside, and all is fetched anew",
                self._repository.path,
                self._repository.damage,
            )
        self.trusted = self._restore(stored)
        # Configs are handed out only once it is known which there are
        self._knows_configs = self.trusted.targets is not None
        self.expired = stored.refill
        self._alive: Callable[[], None] = lambda: None
        self._told: dict[str, dict[str, tuple[int, str]]] = {}
        self._frozen = ""
        self._storage_error = ""
        self._storage_limit = LogLimit()
        self.book = StateBook(states, now)
        self.maps = Maps(pins)
        self._log_level = "info"
        self._interval = float(settings.poll_interval_seconds)
        self.metrics = _metrics_server(settings, self._snapshot, self.maps)
        self.conntrack = ConntrackProduct(
            self._store, self.book, self.maps.record, self._save_states
        )
        self.agent = AgentProduct(
            settings,
            self._store,
            self.book,
            {
                "poll_interval_seconds": self._set_interval,
                "log_level": _set_log_level,
                "metrics": self._set_metrics,
            },
            self._save_states,
        )
        handlers: dict[str, Handler] = {"CONNTRACK": self.conntrack, "AGENT": self.agent}
        self.listeners = {
            product: Listener(product, handlers[product]) for product in settings.products
        }
        self.channel = ServiceChannel(settings)
        self.loop = PollLoop(
            self.poll,
            lambda: self._interval,
            tick=self._tick,
            on_state_change=on_state_change,
            now=now,
        )

    # --- running ------------------------------------------------------------------------------

    def run(self, ready: Callable[[], None], alive: Callable[[], None]) -> None:
        """Answers on the socket, polls and applies, until stopped. Raises SettingsError.

        `ready` is called when all is up, before the first poll; `alive` again and again.
        """
        self._alive = alive
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            server = serve(self.settings.socket, AgentService(self.state, self.maps))
            stack.callback(self._unlisten, server)
            self.agent.start()
            stack.callback(self._end_listeners)
            for listener in self.listeners.values():
                listener.start()
            self._tell()
            ready()
            self.loop.run()

    def _unlisten(self, server: grpc.Server) -> None:
        server.stop(CLOSE_TIMEOUT / 2).wait(CLOSE_TIMEOUT)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.settings.socket)

    def _end_listeners(self) -> None:
        self.channel.close()
        for product, listener in self.listeners.items():
            if not listener.close(CLOSE_TIMEOUT):
                log.warning("the listener %s does not end: it is left behind", product)
        if self.metrics:
            self.metrics.stop()

    def stop(self) -> None:
        """Ends `run`, in the middle of a poll too."""
        self.loop.pause.stop()
        self.channel.cancel()

    def close(self) -> None:
        """Lets go of the state folder."""
        self._held.close()

    def _tick(self) -> None:
        self._alive()
        self._tell()

    # --- one poll -----------------------------------------------------------------------------

    def poll(self) -> Wishes:
        """Asks, verifies, keeps and tells; raises a PollerError, with all as it was before."""
        answer = self.channel.poll(self._request())
        before = self.trusted
        after = verify.update(before, answer, self.host, int(self._now()))
        if after is not before:
            self._repository.commit(after, self.host.digest)
            self.trusted = after
            log.info(
                "took root version %d, targets version %d with %d configs for this host",
                after.root_version,
                after.targets.version if after.targets else 0,
                len(after.configs),
            )
        self._set_expired(answer.config_status == pb.CONFIG_STATUS_EXPIRED)
        self._knows_configs |= after.targets is not None or self.expired
        self._tell()
        return Wishes(answer.suggested_interval_seconds, answer.retry_after_seconds)

    def _set_expired(self, expired: bool) -> None:
        if expired != self.expired:
            if expired:
                log.warning("the director has expired: the base is in force until it is renewed")
            else:
                log.info("the director is valid again")
        self.expired = expired

    def _tell(self) -> None:
        """Hands each product its configs, where they are not those of the last time."""
        if not self._knows_configs:
            return
        now = int(self._now())
        self._set_frozen(verify.frozen(self.trusted, now) or "")
        configs = verify.in_force(self.trusted, now)
        for product, listener in self.listeners.items():
            own = {path: each for path, each in configs.items() if each.path.product == product}
            told = {path: (config.version, config.sha256) for path, config in own.items()}
            if self._told.get(product) == told:
                continue
            self._told[product] = told
            self.book.set_configs(configs)
            listener.post(own)
            self._save_states()

    def _set_frozen(self, frozen: str) -> None:
        if bool(frozen) != bool(self._frozen):
            log.warning("%s", frozen or "the held targets are valid again")
        self._frozen = frozen

    def _restore(self, stored: Stored) -> Trusted:
        try:
            return verify.restore(self._first_root, stored, self.host)
        except UpdateRefused as exc:
            log.warning(
                "%s does not verify (%s): starting anew from %s",
                self._repository.path,
                exc,
                self.settings.director_root,
            )
            return verify.start(self._first_root)

    def _save_states(self) -> None:
        try:
            self._repository.save_states(self.book.all())
            self._storage_error = ""
        except StorageError as exc:
            self._storage_error = str(exc)
            line = self._storage_limit.take(str(exc))
            if line:
                log.warning("%s", line)

    # --- settings that change while we run ----------------------------------------------------

    def _set_interval(self, value: object) -> None:
        self._interval = float(str(value))
        self.loop.pause.wake()

    def _set_metrics(self, value: object) -> None:
        if self.metrics is None:
            return
        if value:
            self.metrics.start()
        else:
            self.metrics.stop()

    # --- what is said of it -------------------------------------------------------------------

    def _request(self) -> pb.ClientGetConfigsRequest:
        return request.build(
            self.host, self.trusted, self._client_state(), self.effective(), self.health()
        )

    def _client_state(self) -> pb.ClientState:
        error = self.loop.stats.error or self._frozen or self._storage_error
        return request.client_state(self.trusted, self.book.all(), error)

    def effective(self) -> dict[str, Value]:
        """What is in force, of all products."""
        return {**self.conntrack.effective, **self.agent.effective}

    def health(self) -> pb.Health:
        """Of the whole, and of each part."""
        stats = self.loop.stats
        polling = "remote config is switched off" if stats.ended else "ok"
        parts = {
            "poll": _health(stats.error if not stats.ended else "", polling),
            "state": _health(self._storage_error),
            "configs": _health(self._frozen),
            "tracker": self._tracker_health(),
        }
        for product, listener in self.listeners.items():
            busy = listener.busy_for()
            error = f"has been at one thing for {busy:.0f} s" if busy > STUCK else ""
            parts[f"listener {product}"] = _health(error)
        bad = [f"{name}: {part.last_error}" for name, part in parts.items() if not part.healthy]
        return pb.Health(
            healthy=not bad,
            status="ok" if not bad else bad[0],
            last_error=bad[0] if bad else "",
            started_at=self.started_at,
            components=parts,
        )

    def _tracker_health(self) -> pb.Health:
        try:
            record = self.maps.record()
            found = self.maps.pulse() if is_followed(record) else None
        except (OSError, TrackerError) as exc:
            return _health(f"the tracker's record cannot be read ({exc})")
        if record is None:
            return _health("no tracker is loaded")
        if not is_followed(record):
            return _health("")
        wrong = pulse.drift(found) + pulse.unfollowed(found)
        return _health("; ".join(wrong), f"degraded: {record.get('degraded')}")

    def state(self) -> agent_pb2.AgentState:
        """The answer to GetState."""
        stats = self.loop.stats
        return agent_pb2.AgentState(
            version=__version__,
            host=self.settings.host,
            client=self._client_state(),
            effective=request.effective_values(self.effective()),
            health=self.health(),
            last_poll_at=int(stats.last_poll_at),
            last_success_at=int(stats.last_success_at),
            config_status=pb.CONFIG_STATUS_EXPIRED if self.expired else pb.CONFIG_STATUS_OK,
            polls=stats.polls,
            failed_polls=stats.failed,
            service=self.settings.service,
            poll_interval_seconds=self.loop.interval_in_force,
            polling_ended=stats.ended,
        )

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            stats=self.loop.stats,
            poll_interval=self.loop.interval_in_force,
            trusted=self.trusted,
            expired=self.expired,
            healthy=self.health().healthy,
            states=self.book.all(),
            busy={name: listener.busy_for() for name, listener in self.listeners.items()},
            token_file=self.settings.token_file,
        )


def _health(error: str, status: str = "ok") -> pb.Health:
    return pb.Health(healthy=not error, status=error or status, last_error=error)


def _first_root(path: str) -> bytes:
    raw = read(path, "deploy the director's first root")
    try:
        verify.start(raw)
    except UpdateRefused as exc:
        raise SettingsError(
            f"{path} is no root of a director ({exc}): deploy the director's first root"
        ) from None
    return raw


def _lock_folder(folder: str) -> IO[str]:
    """Only one agent may have the state; what a killed one left half-written goes."""
    try:
        lock = open(os.path.join(folder, _LOCK), "w", encoding="ascii")  # noqa: SIM115 kept open
    except OSError as exc:
        raise SettingsError(
            f"the state folder {folder} cannot be used ({exc.strerror}): make it, and give it to "
            "the user of the agent"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SettingsError(
            f"another agent has the state folder {folder}: stop it first "
            "(`systemctl stop btfleet-agent.service`)"
        ) from None
    try:
        for name in os.listdir(folder):
            if name.startswith(_UNFINISHED):
                os.unlink(os.path.join(folder, name))
    except OSError as exc:
        lock.close()
        raise SettingsError(
            f"what a killed agent left in {folder} cannot be removed ({exc.strerror}): give the "
            "folder to the user of the agent"
        ) from None
    return lock


def _metrics_server(
    settings: Settings, snapshot: Callable[[], Snapshot], maps: Maps
) -> MetricsServer | None:
    if not settings.metrics_listen:
        return None
    return MetricsServer(split_address(settings.metrics_listen), AgentCollector(snapshot, maps))


def _set_log_level(value: object) -> None:
    logging.getLogger("btfleet").setLevel(str(value).upper())
