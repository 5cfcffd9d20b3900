# SPDX-License-Identifier: GPL-3.0-or-later
"""The poll loop: one thread, which polls, waits, and polls again.

Until the first success it is quiet and quick, since the service may start after us. After that each
failure makes the waits longer, and successes make them shorter again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, NamedTuple

from btfleet.poller.backoff import Backoff, Uniform, wanted_interval
from btfleet.poller.errors import PollerError, SwitchedOff
from btfleet.poller.log_limit import LogLimit

log = logging.getLogger(__name__)

# Seconds: what has to be looked after while nothing is polled (expiry, the watchdog)
TICK = 10.0


class Wishes(NamedTuple):
    """What the service asks of our polling, in seconds; 0: nothing."""

    suggested_interval: float = 0.0
    retry_after: float = 0.0


class Pause:
    """A wait that another thread can end."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._woken = False
        self.stopped = False

    def wait(self, seconds: float) -> None:
        """Returns after so long, or when woken or stopped."""
        with self._condition:
            if not (self._woken or self.stopped):
                self._condition.wait(seconds)
            self._woken = False

    def wake(self) -> None:
        """Ends the current wait, or the next one."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Ends every wait from now on."""
        with self._condition:
            self.stopped = True
            self._condition.notify_all()


@dataclass
class PollStats:
    """What became of the polls so far. Written by the loop, read by others."""

    polls: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    # Unix times in seconds, 0 = never
    last_poll_at: float = 0.0
    last_success_at: float = 0.0
    # Of the last poll, empty if it succeeded
    error: str = ""
    ended: bool = False

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(list(self.failures.values()))


@dataclass
class PollLoop:
    """`poll` raises a PollerError if it fails. `tick` is called often, also between polls.

    `on_state_change` hears True or False as polls succeed or fail: False at each failure after the
    first success, True at the first success after a failure, and nothing before the first success.
    """

    poll: Callable[[], Wishes]
    interval: Callable[[], float]
    pause: Pause = field(default_factory=Pause)
    tick: Callable[[], None] = lambda: None
    on_state_change: Callable[[bool], None] = lambda _up: None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    uniform: Uniform = random.uniform
    stats: PollStats = field(default_factory=PollStats)

    def __post_init__(self) -> None:
        self._backoff = Backoff()
        self._wishes = Wishes()
        self._limit = LogLimit(clock=self.clock)

    @property
    def interval_in_force(self) -> float:
        """Seconds between polls while all is well."""
        return wanted_interval(self.interval(), self._wishes.suggested_interval)

    def run(self) -> None:
        """Until the pause is stopped. When polling ends for good, ticks go on."""
        due, waited_for = self.clock(), self.interval_in_force
        while not self.pause.stopped:
            self.tick()
            if not self.stats.ended and self.clock() >= due:
                self._poll_once()
                due, waited_for = self._next(), self.interval_in_force
            elif self.interval_in_force != waited_for:
                # Decided meanwhile; a wait that is longer than the new one is cut short
                due, waited_for = min(due, self._next()), self.interval_in_force
            left = TICK if self.stats.ended else min(TICK, due - self.clock())
            if left > 0 and not self.pause.stopped:
                self.pause.wait(left)

    def _next(self) -> float:
        wait = self._backoff.wait(self.interval_in_force, self._wishes.retry_after, self.uniform)
        return self.clock() + wait

    def _poll_once(self) -> None:
        stats = self.stats
        stats.polls += 1
        stats.last_poll_at = self.now()
        try:
            wishes = self.poll()
        except PollerError as exc:
            if not self.pause.stopped:
                self._failed(exc)
            return
        had_failed, was_first = bool(stats.error), not self._backoff.succeeded
        self._wishes = wishes
        self._backoff = self._backoff.success()
        stats.last_success_at, stats.error = self.now(), ""
        if had_failed or was_first:
            log.info("polls succeed")
        if had_failed and not was_first:
            self.on_state_change(True)

    def _failed(self, exc: PollerError) -> None:
        stats = self.stats
        stats.failures[exc.kind] = stats.failures.get(exc.kind, 0) + 1
        stats.error = str(exc)
        self._wishes = self._wishes._replace(retry_after=0.0)
        self._backoff = self._backoff.failed(self.interval_in_force)
        if isinstance(exc, SwitchedOff):
            stats.ended = True
            log.warning("%s", exc)
        else:
            line = self._limit.take(str(exc))
            if line:
                log.log(logging.WARNING if self._backoff.succeeded else logging.INFO, "%s", line)
        if self._backoff.succeeded:
            self.on_state_change(False)
