# SPDX-License-Identifier: GPL-3.0-or-later
"""When to poll next. Pure but for the random numbers that are handed in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable

# Seconds
CAP = 90.0
FIRST_RETRY = 1.0
LONGEST_WAIT = 3600.0

# A success takes back so many failures, so that a service that comes and goes is asked less often
RECOVERY = 2
# Polls of a fleet that was started at once drift apart by this share of the interval
JITTER = 0.1

# Uniform between two numbers, as random.uniform
Uniform = Callable[[float, float], float]


@dataclass(frozen=True)
class Backoff:
    """How many failures weigh on the next wait, and whether any poll ever succeeded."""

    failures: int = 0
    succeeded: bool = False

    def failed(self, interval: float) -> Backoff:
        """After a failed poll. Before the first success nothing grows: it may start after us."""
        if not self.succeeded:
            return self
        return replace(self, failures=min(self.failures + 1, _most(interval)))

    def success(self) -> Backoff:
        """After a poll that was answered."""
        return Backoff(max(0, self.failures - RECOVERY), succeeded=True)

    def wait(self, interval: float, retry_after: float, uniform: Uniform) -> float:
        """Seconds until the next poll. `retry_after` is the service's wish, within bounds."""
        if not self.succeeded:
            longest = min(interval, FIRST_RETRY)
            return uniform(longest / 2, longest)
        wait = uniform(interval * (1 - JITTER), interval) + self._extra(interval, uniform)
        asked = min(max(retry_after, 0.0), LONGEST_WAIT)
        # All that were sent away at once must not come back at once
        return max(wait, uniform(asked, asked * (1 + JITTER)))

    def _extra(self, interval: float, uniform: Uniform) -> float:
        if self.failures == 0:
            return 0.0
        longest = interval * 2**self.failures
        return CAP if longest > CAP else uniform(longest / 2, longest)


def _most(interval: float) -> int:
    """So many failures reach the cap; more would only make the recovery longer."""
    return max(1, math.floor(math.log2(CAP / interval)) + 1)


def wanted_interval(own: float, suggested: float) -> float:
    """The interval in force: a service may ask for fewer polls, never for more."""
    return max(own, min(suggested, LONGEST_WAIT))
