# SPDX-License-Identifier: GPL-3.0-or-later
"""What one command leaves for the next, under /run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = Path("/run/btfleet-nat")


def save(name: str, value: Any) -> None:
    """Write one value, all or nothing."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    temporary = FOLDER / f"{name}.new"
    temporary.write_text(json.dumps(value))
    temporary.rename(FOLDER / f"{name}.json")


def load(name: str, default: Any = None) -> Any:
    """The value saved, or the default."""
    try:
        return json.loads((FOLDER / f"{name}.json").read_text())
    except FileNotFoundError:
        return default


def remove() -> None:
    """Forget everything."""
    shutil.rmtree(FOLDER, ignore_errors=True)
