# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect checks, and print them as JSON with a closing line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

SHOWN = 20


@dataclass
class Check:
    """One thing that held or did not."""

    name: str
    ok: bool
    detail: object = None


@dataclass
class Report:
    """Everything one command found."""

    checks: list[Check] = field(default_factory=list)

    def add(self, name: str, ok: bool, detail: object = None) -> None:
        """Note a check; failures are printed at once."""
        self.checks.append(Check(name, ok, detail))
        if not ok:
            print(f"FAILED: {name}")

    def nothing(self, name: str, found: list[str], detail: object = None) -> None:
        """A check that holds when the list is empty; prints the first of it."""
        self.add(name, not found, detail if detail is not None and not found else len(found))
        for line in found[:SHOWN]:
            print(f"  {line}")
        if len(found) > SHOWN:
            print(f"  and {len(found) - SHOWN} more")

    @property
    def failed(self) -> int:
        """How many did not hold."""
        return sum(not check.ok for check in self.checks)

    def finish(self) -> int:
        """Print the summary; the exit code."""
        passed = len(self.checks) - self.failed
        checks = [asdict(check) for check in self.checks]
        print(json.dumps({"checks": checks, "passed": passed, "failed": self.failed}, indent=1))
        print(f"{passed} passed, {self.failed} failed")
        return 1 if self.failed else 0
