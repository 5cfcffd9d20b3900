# SPDX-License-Identifier: GPL-3.0-or-later
"""When to refresh next. Pure."""

from __future__ import annotations

import random

BASE_SECONDS = 30.0
MOST_SECONDS = 120.0
# A success takes back more than one failure, so that a flapping repository is not left for long
RECOVERY = 2
JITTER = 0.1


class Backoff:
    """Counts failures; `delay` says how many seconds to wait."""

    def __init__(self, interval: float, rng: random.Random) -> None:
        self._interval, self._rng = interval, rng
        self.failures = 0
        self._ever = False

    def succeeded(self) -> None:
        """A refresh did."""
        self._ever = True
        self.failures = max(0, self.failures - RECOVERY)

    def failed(self) -> None:
        """A refresh did not. The count stops where the wait does."""
        self.failures = min(self.failures + 1, 8)

    def delay(self) -> float:
        """Interval and backoff. Before the first success, when hosts wait: from a second on."""
        if not self._ever and self.failures:
            most = min(self._interval, 2.0**self.failures)
            return self._rng.uniform(max(1.0, most / 2), max(1.0, most))
        wait = self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
        if self.failures:
            backoff = BASE_SECONDS * 2.0**self.failures
            wait += (
                MOST_SECONDS if backoff > MOST_SECONDS else self._rng.uniform(backoff / 2, backoff)
            )
        return wait
