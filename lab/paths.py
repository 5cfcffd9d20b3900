# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps its files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# Guests and their overlays; git-ignored, and removed by `down`.
DEFAULT_STATE = CHECKOUT / "build" / "lab"


def cache_folder() -> Path:
    """Images and the ssh key: shared by all checkouts of this user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative values.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "btfleet"


@contextlib.contextmanager
def locked(lock_file: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel frees it however this process ends."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    # The file stays: removing it would let two processes lock two different files.
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
