# SPDX-License-Identifier: GPL-3.0-or-later
"""Listeners of products, each in a thread of its own.

The poll loop hands a listener the product's configs and goes on at once: a listener that hangs
keeps back neither the loop nor other listeners. It is only ever given the newest configs (a mailbox
with one place), so nothing piles up behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Mapping, Protocol

from btfleet.poller.verify import Config

log = logging.getLogger(__name__)

Configs = Mapping[str, Config]


class Handler(Protocol):
    """What a product does with its configs."""

    # Seconds between calls of `watch`
    interval: float

    def update(self, configs: Configs) -> None:
        """Other configs are in force than before: all of them, by path."""

    def watch(self) -> None:
        """Looks after what was asked for and after what it was made from."""


class Listener:
    """Runs a handler. `post` never waits."""

    def __init__(self, product: str, handler: Handler) -> None:
        self.product = product
        self._handler = handler
        self._condition = threading.Condition()
        self._mail: Configs | None = None
        self._closing = False
        # Since when the handler has been busy with one call, by the monotonic clock
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"listener-{product}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def post(self, configs: Configs) -> None:
        """Replaces what has not been taken yet."""
        with self._condition:
            self._mail = dict(configs)
            self._condition.notify()

    def busy_for(self) -> float:
        """Seconds that the handler's current call has taken so far; 0 if it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self, timeout: float) -> bool:
        """Ends the thread; says whether it ended within the timeout. If not, it is left behind."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._mail is None and not self._closing:
                    self._condition.wait(self._handler.interval)
                if self._closing:
                    return
                configs, self._mail = self._mail, None
            self._busy_since = time.monotonic()
            try:
                if configs is not None:
                    self._handler.update(configs)
                self._handler.watch()
            except Exception:  # whatever one product does wrong, others go on
                log.exception("listener %s failed", self.product)
            finally:
                self._busy_since = None
