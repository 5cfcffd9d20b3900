# SPDX-License-Identifier: GPL-3.0-or-later
"""Refreshing: update, build the snapshot, commit at the very end, and only then serve it."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Callable, Mapping

from btfleet.service.backoff import Backoff
from btfleet.service.chain import REPOSITORIES, Chain
from btfleet.service.errors import Refused, ServiceError, StoreError
from btfleet.service.fetch import Limits
from btfleet.service.generation import NOTHING, Generation, restore, verify
from btfleet.service.settings import Settings, read_file
from btfleet.service.snapshot import Snapshot
from btfleet.service.store import Store
from btfleet.service.update import check_anchor, is_unchanged, trusts, update

logger = logging.getLogger(__name__)

MIN_PAUSE_SECONDS = 1.0


def read_anchors(settings: Settings) -> dict[str, bytes]:
    """The first roots by repository; raises SettingsError or Refused."""
    paths = {"director": settings.roots.director, "config": settings.roots.config}
    anchors = {name: read_file(path) for name, path in paths.items()}
    for name, raw in anchors.items():
        check_anchor(name, raw)
    return anchors


class Refresher:
    """Holds the store and the snapshot. `snapshot` may be read by any thread at any time."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        anchors: Mapping[str, bytes],
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    ) -> None:
        """Serves what the store holds, as far as it verifies; a damaged store is set aside."""
        self._settings, self._store, self._anchors, self._limits = settings, store, anchors, limits
        self._lock = threading.Lock()
        self.snapshot: Snapshot | None = None
        self._chains: Mapping[str, Chain] = {}
        self.refreshed_at = 0.0
        self.last_error = ""
        stored = store.load()
        if not stored.chains:
            return
        try:
            opened = verify(stored)
        except Refused as exc:
            store.set_aside(str(exc))
            return
        if all(trusts(stored.chains[name], anchors[name]) for name in REPOSITORIES):
            try:
                self.snapshot = self._built(restore(stored, opened, settings.org))
                self._chains = stored.chains
            except Refused as exc:  # of another org, say: its versions still count
                self.last_error = str(exc)
                logger.warning("what is stored is not served: %s", exc)

    def refresh(self, from_roots: bool = False) -> bool:
        """One refresh, `from_roots`: as if nothing had been stored. Whether anything changed.

        Raises Refused with store and snapshot as they were.
        """
        with self._lock:
            try:
                changed = self._refresh(from_roots)
            except ServiceError as exc:
                self.last_error = str(exc)
                raise
            self.last_error = ""
            self.refreshed_at = time.time()
            return changed

    def _refresh(self, from_roots: bool) -> bool:
        try:
            if not from_roots and self._is_unchanged():
                return False
            stored = NOTHING if from_roots else self._store.load()
            generation = update(
                self._settings.repository,
                self._settings.repository_ca,
                self._anchors,
                stored,
                self._store.staging,
                self._settings.org,
                self._limits,
                rebuild=from_roots or self.snapshot is None,
            )
            if generation is None:
                return False
            snapshot = self._built(generation)
            self._store.commit(generation)
        except StoreError as exc:
            raise Refused("store", str(exc)) from None
        except OSError as exc:
            raise Refused(
                "store",
                f"cannot write below {self._settings.state_folder} ({exc.strerror or exc}): "
                "make room on its disk; what is served is unchanged",
            ) from None
        self.snapshot, self._chains = snapshot, generation.chains
        return True

    def _is_unchanged(self) -> bool:
        """A look at the repository that costs next to nothing, while nothing has expired."""
        snapshot = self.snapshot
        if snapshot is None or time.time() >= snapshot.first_expiry:
            return False
        return is_unchanged(
            self._settings.repository, self._settings.repository_ca, self._chains, self._limits
        )

    def _built(self, generation: Generation) -> Snapshot:
        return Snapshot(generation, self._settings.suggested_interval_seconds)


class RefreshLoop:
    """Refreshes now and then in a thread of its own, until it is stopped."""

    def __init__(
        self, refresher: Refresher, interval: float, done: Callable[[str, float], None]
    ) -> None:
        """`done` is told the result of each refresh (as in metrics) and how long it took."""
        self._refresher, self._done = refresher, done
        self._backoff = Backoff(interval, random.Random())  # noqa: S311 - spreads load, no secret
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="refresh", daemon=True)

    def start(self) -> None:
        """Begins with a refresh."""
        self._thread.start()

    def now(self) -> None:
        """Refreshes as soon as it may."""
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Ends the loop; a refresh that goes on for longer is left to die with the process."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self._once()
            if not self._stopping.wait(MIN_PAUSE_SECONDS):
                self._wake.wait(max(0.0, self._backoff.delay() - MIN_PAUSE_SECONDS))

    def _once(self) -> None:
        started = time.monotonic()
        try:
            result = "changed" if self._refresher.refresh() else "unchanged"
            self._backoff.succeeded()
        except Refused as exc:
            result = exc.reason
            self._backoff.failed()
            logger.warning("refresh refused: %s", exc)
        except Exception:  # whatever it is, the service goes on with what it has
            result = "internal"
            self._backoff.failed()
            logger.exception("refresh failed for a reason that is a defect of the config service")
        self._done(result, time.monotonic() - started)
