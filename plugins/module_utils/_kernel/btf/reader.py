# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads struct layouts from the kernel's BTF (Documentation/bpf/btf.rst), without libbpf.

For hosts whose libbpf is older than some of the kernel's types: before 1.0 it refuses all of them
for the sake of a 64-bit enum (6.0).
"""

from __future__ import annotations

import struct
from typing import Iterator

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")  # name, kind and number of members, size or type
_MEMBER = struct.Struct("=III")  # name, type, offset in bits
_ARRAY_ELEMENT = struct.Struct("=I")

STRUCT, UNION = 4, 5
# Names for names for an array of …: no type of a kernel comes near it
_DEEPEST = 64
_ARRAY = 3
# typedef, volatile, const, restrict, type tag: another type, by another name
_REFERENCES = (8, 9, 10, 11, 18)
# What lies behind a type's first twelve bytes, by kind: so many bytes, and so many for each member
_BEHIND = {
    **dict.fromkeys((2, 7, 12, 16, *_REFERENCES), (0, 0)),  # pointer, forward, function, float
    **dict.fromkeys((1, 14, 17), (4, 0)),  # integer, variable, declaration tag
    _ARRAY: (12, 0),
    **dict.fromkeys((6, 13), (0, 8)),  # enum, prototype
    **dict.fromkeys((STRUCT, UNION, 15, 19), (0, 12)),  # section, 64-bit enum
}


class RawBtf:
    """A kernel's types and those of one of its modules; raises ValueError for anything else."""

    def __init__(self, kernel: bytes, module: bytes = b"") -> None:
        # A module's numbers of types and offsets of strings go on where the kernel's end
        parts = [_sections(content) for content in ([kernel, module] if module else [kernel])]
        self._types = b"".join(types for types, _strings in parts)
        self._strings = b"".join(strings for _types, strings in parts)
        self._places: list[int] = []
        self._named: dict[tuple[int, int], int] = {}
        for place, name, kind in _heads(self._types):
            self._places.append(place)
            if kind in (STRUCT, UNION):
                self._named[kind, name] = len(self._places)

    def find(self, name: str, kind: int = STRUCT) -> int | None:
        """The id of a struct or union, None if it is not described."""
        text = b"\0" + name.encode() + b"\0"
        found = self._strings.find(text)
        while found >= 0:  # a module may have a name again
            if (kind, found + 1) in self._named:
                return self._named[kind, found + 1]
            found = self._strings.find(text, found + 1)
        return None

    def size(self, number: int) -> int:
        """Of a struct or union, in bytes."""
        return self._head(number)[2]

    def members(self, number: int) -> dict[str, tuple[int, int]]:
        """Those of a struct or union that have a name: type and offset in bits."""
        _kind, info, _size = self._head(number)
        start = self._places[number - 1] + _TYPE.size
        raw = self._types[start : start + _MEMBER.size * (info & 0xFFFF)]
        # With bit fields among them, an offset has a field's size in its upper byte
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        named = ((self._text(name), kind, at & mask) for name, kind, at in _MEMBER.iter_unpack(raw))
        return {name: (kind, at) for name, kind, at in named if name}

    def element(self, number: int) -> int:
        """What a type comes down to behind its other names, and of an array, what it is made of."""
        for _step in range(_DEEPEST):
            kind, _info, target = self._head(number)
            if kind == _ARRAY:
                target = _ARRAY_ELEMENT.unpack_from(
                    self._types, self._places[number - 1] + _TYPE.size
                )[0]
            elif kind not in _REFERENCES:
                return number
            number = target
        raise ValueError("its types go round in a circle")

    def _head(self, number: int) -> tuple[int, int, int]:
        if not 0 < number <= len(self._places):
            raise ValueError(f"it has no type {number}")
        _name, info, size = _TYPE.unpack_from(self._types, self._places[number - 1])
        return info >> 24 & 31, info, size

    def _text(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode("ascii", "replace")


def _sections(content: bytes) -> tuple[bytes, bytes]:
    """Types and strings."""
    if len(content) < _HEADER.size:
        raise ValueError("it is cut short")
    magic, _version, _flags, header, types, types_size, strings, strings_size = _HEADER.unpack_from(
        content
    )
    if magic != _MAGIC:
        raise ValueError("it does not begin as BTF does")
    if len(content) < header + max(types + types_size, strings + strings_size):
        raise ValueError("it is cut short")
    return (
        content[header + types : header + types + types_size],
        content[header + strings : header + strings + strings_size],
    )


def _heads(types: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each type begins, where its name is, and its kind."""
    place = 0
    while place < len(types):
        if len(types) - place < _TYPE.size:
            raise ValueError("it is cut short")
        name, info, _size = _TYPE.unpack_from(types, place)
        kind = info >> 24 & 31
        behind = _BEHIND.get(kind)
        if behind is None:
            raise ValueError(f"types of kind {kind} are not known")
        yield place, name, kind
        place += _TYPE.size + behind[0] + behind[1] * (info & 0xFFFF)
    if place != len(types):
        raise ValueError("it is cut short")
