# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a token for each host and one for an operator, and the service's file of their hashes.

python3 -m remote.tokens FOLDER HOST…
    writes token-HOST, operator-header (for curl) and tokens.json
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from pathlib import Path


def make(folder: Path, hosts: list[str]) -> None:
    """Tokens that were there before are no longer good."""
    folder.mkdir(parents=True, exist_ok=True)
    hashed = {}
    for name in [*hosts, "operator"]:
        token = secrets.token_urlsafe(32)
        hashed[name] = [hashlib.sha256(token.encode()).hexdigest()]
        path = folder / (f"token-{name}" if name in hosts else "operator-header")
        path.touch(mode=0o600)
        path.write_text(f"{'' if name in hosts else 'Authorization: Bearer '}{token}\n")
    operators = {"operator": hashed.pop("operator")}
    new = folder / ".tokens.json.new"
    new.write_text(json.dumps({"hosts": hashed, "operators": operators}, indent=2) + "\n")
    new.rename(folder / "tokens.json")


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
