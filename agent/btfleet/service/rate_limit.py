# SPDX-License-Identifier: GPL-3.0-or-later
"""How often something may happen, for each of many: token buckets in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Callable


class RateLimit:
    """For each key so many at once, and so many a second in the long run. Thread-safe.

    At most `most` keys are remembered. The one that was heard of the longest time ago is forgotten
    first: its bucket is the fullest, so that is what least can be gained by.
    """

    def __init__(
        self,
        at_once: int,
        per_second: float,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once, self._per_second, self._most = at_once, per_second, most
        self._clock, self._lock = clock, threading.Lock()
        # What is left in each bucket, and when it was looked at
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> float:
        """0 if it may happen now, else the seconds until it may, in which case nothing is taken."""
        with self._lock:
            now = self._clock()
            left, looked_at = self._buckets.pop(key, (float(self._at_once), now))
            left = min(float(self._at_once), left + (now - looked_at) * self._per_second)
            wait = 0.0 if left >= 1 else (1 - left) / self._per_second
            self._buckets[key] = (left if wait else left - 1, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
            return wait
