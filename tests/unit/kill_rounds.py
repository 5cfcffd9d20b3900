# SPDX-License-Identifier: GPL-3.0-or-later
"""How often processes are killed at random moments: few times in every run, more by hand."""

from __future__ import annotations

import os

KILL_ROUNDS = int(os.environ.get("BTFLEET_KILL_ROUNDS", "30"))
# Seconds that so many may take on a machine that is busy
KILL_TIMEOUT = 60 + 10 * KILL_ROUNDS
