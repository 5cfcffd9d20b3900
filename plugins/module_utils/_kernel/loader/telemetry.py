# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load results, counted on the host: which asset, where, and what came of it.

A result is custom, embedded, default or runtime (loaded, with BTF from a file, from the archive,
from the kernel, or made of the kernel's headers), netlink (a process follows conntrack events, and
nothing had to be loaded), or btf_not_found, asset_read, verifier or loader (not loaded).
"""

from __future__ import annotations

import json
import os
import time

from .. import os_release
from ..spec import NETLINK, RUNTIME
from ..store import Store, write_atomically

SUCCESSES = ("custom", "embedded", "default", RUNTIME, NETLINK)
FAILURES = ("btf_not_found", "asset_read", "verifier", "loader")

TAGS = ("asset", "platform", "platform_version", "kernel", "arch", "result")


def tags(asset: str, result: str) -> dict[str, str]:
    """The tags of a load on this host."""
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:
            release = os_release.parse(stream.read())
    except OSError:
        release = {}
    return {
        "asset": asset,
        "platform": release.get("ID", "unknown"),
        "platform_version": release.get("VERSION_ID", "unknown"),
        "kernel": os.uname().release,
        "arch": os.uname().machine,
        "result": result,
    }


def add(counts: list[dict[str, object]], tagged: dict[str, str], now: int) -> None:
    """Counts one more load with these tags in `counts`."""
    for row in counts:
        if all(row.get(name) == tagged[name] for name in TAGS):
            row["count"] = int(str(row["count"])) + 1
            row["last"] = now
            return
    counts.append({**tagged, "count": 1, "last": now})


def _is_count(value: object) -> bool:
    # JSON's true and false are no counts, though Python takes them for numbers
    return isinstance(value, int) and not isinstance(value, bool)


def read(store: Store) -> list[dict[str, object]]:
    """All rows: the tags, `count` and `last` (Unix seconds); none if nothing was counted."""
    try:
        with open(store.results_path, encoding="utf-8") as stream:
            rows = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and _is_count(row.get("count"))]


def count(store: Store, asset: str, result: str) -> None:
    """Counts a load. A disk that cannot be written is no reason for a load to fail."""
    rows = read(store)
    add(rows, tags(asset, result), int(time.time()))
    try:
        write_atomically(store.results_path, json.dumps(rows, indent=1).encode() + b"\n")
    except OSError:
        return
