# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until a config is in force here, and says after how many polls it was still unknown.

    python3 -m guest.within_polls PATH SINCE

PATH is the config's, SINCE the agent's count of polls when it could be had. Exit code 1, and a
line, if the agent had polled three times since then and did not know of it, or it is not in
force after five minutes. How long the loader takes is the machine's business.
"""

from __future__ import annotations

import sys
import time

from .commands import GuestError, status

POLLS = 2
PATIENCE = 300


def wait(path: str, since: int) -> str:
    """What was seen."""
    end = time.monotonic() + PATIENCE
    unknown_at = since
    while time.monotonic() < end:
        agent = status()["agent"]
        states = {one["path"]: one["apply_phase"] for one in agent["client"]["config_states"]}
        if path not in states:
            unknown_at = int(agent["polls"])
            if unknown_at > since + POLLS:
                raise GuestError(f"after {unknown_at - since} polls {path} is not there")
        elif states[path] == "APPLY_PHASE_APPLIED":
            return f"known at the latest {unknown_at - since + 1} polls after it was published"
        time.sleep(0.2)
    raise GuestError(f"{path} is not in force after {PATIENCE} s: {states}")


def main() -> int:
    """The exit code."""
    try:
        print(wait(sys.argv[1], int(sys.argv[2])))
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
