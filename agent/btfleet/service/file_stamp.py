# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a file was changed, for what is read again then."""

from __future__ import annotations

import os


def stamp(*paths: str) -> tuple[object, ...]:
    """Something that is another thing after any of the files was written or replaced."""
    found: list[object] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)
