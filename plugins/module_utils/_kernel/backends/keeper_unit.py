# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit whose process keeps a tracker that the kernel does not keep by itself."""

from __future__ import annotations

import os
import subprocess
import sys

UNIT = "btfleet-conntracker.service"


def hand_over() -> None:
    """Where the unit is in force, its process takes over from one that was started in its stead."""
    # A unit's own command must not wait for a job that waits for it
    waiting = ["--no-block"] if "INVOCATION_ID" in os.environ else []
    try:
        subprocess.run(
            ["systemctl", *waiting, "try-restart", UNIT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=300,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        sys.stderr.write(f"btfleet: {UNIT} could not take over ({exc})\n")
