# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the live translations of one moment are there later on as well.

python3 -m guest.kept record FILE
python3 -m guest.kept compare FILE [FAMILY/PROTOCOL]
    exit code 1, and a line for each that is gone; those of the named kind have to be gone
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .commands import run


def look() -> list[str]:
    """The dump's lines."""
    return run("btfleet", "conntrack", "dump", "--json").splitlines()


def compare(before: list[str], now: list[str], without: str | None) -> list[str]:
    """What is not as it has to be."""
    left = {line for line in before if without == _kind(line)}
    gone = [f"gone: {line}" for line in before if line not in left and line not in set(now)]
    still = [f"still there: {line}" for line in now if without == _kind(line)]
    if without and not left:
        gone.append(f"there was no flow of {without} before")
    return gone + still


def _kind(line: str) -> str:
    flow = json.loads(line)
    return f"{flow['family']}/{flow['protocol']}"


def main() -> int:
    """The exit code."""
    action, path, *rest = sys.argv[1:]
    if action == "record":
        Path(path).write_text("\n".join(look()) + "\n")
        return 0
    before = Path(path).read_text().splitlines()
    wrong = compare(before, look(), rest[0] if rest else None)
    print("\n".join([*wrong[:20], f"{len(before)} before, {len(wrong)} not as they have to be"]))
    return 1 if wrong or not before else 0


if __name__ == "__main__":
    sys.exit(main())
