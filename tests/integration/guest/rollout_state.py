# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout could change on a host: recorded before, compared after.

python3 -m guest.rollout_state record FILE
python3 -m guest.rollout_state untouched FILE   not even a process was restarted
python3 -m guest.rollout_state returned FILE    all is as it was, and a failure is on record
    exit code 1, and a line for each difference
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from .commands import run

CURRENT = Path("/opt/btfleet/current")
OUTCOME = Path("/var/lib/btfleet/rollout.json")
SETTINGS = Path("/etc/btfleet")
UNITS = ("btfleet-agent.service", "btfleet-apply.path", "btfleet-conntracker.service")
# What is another one after a load or a restart of the same
MOMENTARY = ("programs", "loaded_at", "agent_process", "outcome")


def look() -> dict[str, Any]:
    """The state now."""
    status = json.loads(run("btfleet", "status", "--json", ok=(0, 5)))
    return {
        "release": os.path.basename(CURRENT.resolve()),
        "fingerprint": status["record"]["fingerprint"],
        "programs": status["record"]["programs"],
        "loaded_at": status["record"]["loaded_at"],
        "drift": status["drift"],
        "agent_running": (status["agent"] or {}).get("running"),
        "agent_process": run(
            "systemctl", "show", UNITS[0], "--property=MainPID", "--value"
        ).strip(),
        "files": {
            path.name: [hashlib.sha256(path.read_bytes()).hexdigest(), oct(path.stat().st_mode)]
            for path in sorted(SETTINGS.iterdir())
        },
        "units": [
            run("systemctl", "show", unit, "--property=ActiveState,UnitFileState").split()
            for unit in UNITS
        ],
        "outcome": json.loads(OUTCOME.read_text()),
    }


def compare(action: str, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it has to be."""
    names = set(before) - (set(MOMENTARY) if action == "returned" else set())
    wrong = [
        f"{name}: {before[name]} is {now[name]} now"
        for name in sorted(names)
        if before[name] != now[name]
    ]
    if action == "returned":
        outcome = now["outcome"]
        if outcome["outcome"] != "failed" or not outcome["reason"] or not outcome["returned_to"]:
            wrong.append(f"no failure with its reason is on record: {outcome}")
    return wrong


def main() -> int:
    """The exit code."""
    action, path = sys.argv[1], Path(sys.argv[2])
    if action == "record":
        path.write_text(json.dumps(look()))
        return 0
    now = look()
    wrong = compare(action, json.loads(path.read_text()), now)
    print("\n".join([*wrong, json.dumps(now["outcome"])]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
