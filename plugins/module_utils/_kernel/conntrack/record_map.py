# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a load, out of the map that it is pinned in."""

from __future__ import annotations

import json

from ..bpf import bpf


def read(fd: int) -> dict[str, object] | None:
    """The record, None if it is damaged."""
    raw = bpf.map_lookup(fd, bytes(4), bpf.map_info(fd).value_size)
    try:
        record = json.loads((raw or b"").rstrip(b"\0"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and "fingerprint" in record else None
