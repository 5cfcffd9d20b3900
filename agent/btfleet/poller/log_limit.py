# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of one kind in the log: so many a minute, then their number."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Callable

MINUTE = 60.0


@dataclass
class LogLimit:
    """Lets `per_minute` lines through, and counts those that it keeps back."""

    per_minute: int = 5
    clock: Callable[[], float] = time.monotonic
    _started: float = field(default=-MINUTE, init=False)
    _let_through: int = field(default=0, init=False)
    _kept_back: int = field(default=0, init=False)

    def take(self, line: str) -> str | None:
        """The line to write now, with how many were kept back before it, or None."""
        now = self.clock()
        kept_back = 0
        if now - self._started >= MINUTE:
            kept_back, self._kept_back = self._kept_back, 0
            self._started, self._let_through = now, 0
        if self._let_through >= self.per_minute:
            self._kept_back += 1
            return None
        self._let_through += 1
        return f"{line} ({kept_back} such lines were left out before)" if kept_back else line
