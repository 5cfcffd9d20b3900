# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes BTF, as much of it as struct layouts take (Documentation/bpf/btf.rst of the kernel)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Mapping

_MAGIC, _VERSION = 0xEB9F, 1
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")  # name, kind and number of members, size or type
_MEMBER = struct.Struct("=III")  # name, type, offset in bits
_ARRAY = struct.Struct("=III")  # type of elements, type of indices, number of elements
_INT, _PTR, _ARRAY_KIND, _STRUCT, _UNION = 1, 2, 3, 4, 5

# Unsigned, by the names that members' types have here; bytes
_INTEGERS = {"u8": 1, "u16": 2, "u32": 4, "long": struct.calcsize("L")}
_ARRAY_OF = re.compile(r"(.+)\[(\d+)\]")


@dataclass(frozen=True)
class Composite:
    """A struct or a union. `size` in bytes; `members` are name, type and offset in bytes.

    A type is an integer (u8, u16, u32, long), the key of another composite, or either followed by
    `[n]` (an array) or `*` (a pointer).
    """

    name: str
    size: int
    members: tuple[tuple[str, str, int], ...]
    is_union: bool = False


def write(composites: Mapping[str, Composite]) -> bytes:
    """BTF in the byte order of this machine. Raises KeyError for a type that is not there."""
    ids: dict[str, int] = {}
    for composite in composites.values():
        for _name, kind, _offset in composite.members:
            _number(kind, ids)
    for key in composites:
        _number(key, ids)
    strings = bytearray(b"\0")
    types = b"".join(_encode(key, composites, ids, strings) for key in ids)
    header = _HEADER.pack(
        _MAGIC, _VERSION, 0, _HEADER.size, 0, len(types), len(types), len(strings)
    )
    return header + types + strings


def _number(kind: str, ids: dict[str, int]) -> None:
    """Gives a type and those that it is made of their ids, which count from 1."""
    array = _ARRAY_OF.fullmatch(kind)
    if array:
        _number(array.group(1), ids)
        _number("u32", ids)
    elif kind.endswith("*"):
        _number(kind[:-1], ids)
    ids.setdefault(kind, len(ids) + 1)


def _encode(
    key: str, composites: Mapping[str, Composite], ids: Mapping[str, int], strings: bytearray
) -> bytes:
    def text(name: str) -> int:
        if not name:
            return 0
        start = len(strings)
        strings.extend(name.encode() + b"\0")
        return start

    array = _ARRAY_OF.fullmatch(key)
    if array:
        shape = _ARRAY.pack(ids[array.group(1)], ids["u32"], int(array.group(2)))
        return _TYPE.pack(0, _ARRAY_KIND << 24, 0) + shape
    if key.endswith("*"):
        return _TYPE.pack(0, _PTR << 24, ids[key[:-1]])
    if key in _INTEGERS:
        size = _INTEGERS[key]
        return _TYPE.pack(text(key), _INT << 24, size) + struct.pack("=I", size * 8)
    composite = composites[key]
    kind = _UNION if composite.is_union else _STRUCT
    return _TYPE.pack(
        text(composite.name), kind << 24 | len(composite.members), composite.size
    ) + b"".join(
        _MEMBER.pack(text(name), ids[member_type], offset * 8)
        for name, member_type, offset in composite.members
    )
