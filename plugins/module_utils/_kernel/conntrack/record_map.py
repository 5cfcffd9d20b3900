# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a load, in a map of its own that is pinned beside what it describes."""

from __future__ import annotations

import json
from typing import Mapping

from ..bpf import bpf
from ..errors import LoaderError
from ..spec import NETLINK
from .reading import ENTRIES

# A link is pinned, or held, as this and its program's role
LINK = "link_"
# Pins of iterators to the role of their program; missing where the kernel has none
ITERATORS = dict.fromkeys(ENTRIES.values(), "entries")

_SIZE = 4096


def make(record: Mapping[str, object]) -> int:
    """Return a map that holds the record: it lives and dies with the pins beside it."""
    raw = json.dumps(record, separators=(",", ":")).encode()
    if len(raw) > _SIZE:
        raise LoaderError(f"the record takes {len(raw)} bytes, room is for {_SIZE}")
    fd = bpf.map_create(bpf.ARRAY, 4, _SIZE, 1, "btfleet_loaded")
    bpf.map_update(fd, bytes(4), raw.ljust(_SIZE, b"\0"))
    return fd


def read(fd: int) -> dict[str, object] | None:
    """Return the record, None if it is damaged."""
    raw = bpf.map_lookup(fd, bytes(4), bpf.map_info(fd).value_size)
    try:
        record = json.loads((raw or b"").rstrip(b"\0"))
    except ValueError:
        return None
    return record if isinstance(record, dict) and "fingerprint" in record else None


def is_followed(record: Mapping[str, object] | None) -> bool:
    """Whether it is of the tier netlink."""
    return record is not None and record.get("tier") == NETLINK


def numbers(record: Mapping[str, object] | None, name: str) -> dict[str, int]:
    """Return ids out of the record: of its `links`, `maps` or `programs`, by name."""
    value = (record or {}).get(name)
    return value if isinstance(value, dict) else {}


def last_pass(record: Mapping[str, object] | None) -> int:
    """Return the number of the last pass of an initial sync over the live map; 0 for none."""
    last = (record or {}).get("last_pass", 0)
    return last if isinstance(last, int) else 0


def role(pin: str) -> str:
    """Return the role of the program behind a link."""
    return ITERATORS.get(pin) or pin[len(LINK) :]


def probe_roles(record: Mapping[str, object] | None) -> dict[str, int]:
    """Return the programs that are attached to the kernel's functions: role to id."""
    programs = numbers(record, "programs")
    return {name: number for name, number in programs.items() if name not in ITERATORS.values()}


def probe_links(record: Mapping[str, object] | None) -> set[int]:
    """Return the ids of the links of those programs, where the kernel has links for them."""
    return {number for name, number in numbers(record, "links").items() if name not in ITERATORS}
