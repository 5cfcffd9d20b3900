# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of the flows that were made, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from . import state
from .wanted import Made


def write(name: str, flows: Iterable[Made]) -> None:
    """A whole file at once."""
    state.FOLDER.mkdir(mode=0o700, exist_ok=True)
    text = "".join(json.dumps(made.record()) + "\n" for made in flows)
    (state.FOLDER / f"{name}.jsonl").write_text(text)


def read(pattern: str) -> list[list[Any]]:
    """The lines of all the files that match, oldest file first."""
    found = sorted(state.FOLDER.glob(f"{pattern}.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for path in found for line in path.read_text().splitlines()]
