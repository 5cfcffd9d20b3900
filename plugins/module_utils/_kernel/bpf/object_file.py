# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The object file: what it is, before anything is handed to libbpf.

Reads just enough ELF (System V ABI, 64-bit little endian) to say in one line what is wrong with
a file, to find the constants in .rodata, and the `btfleet` section, in which the object tells
the architecture and the map layout that it was built for.
"""

from __future__ import annotations

import hashlib
import platform
import struct
from dataclasses import dataclass

from ..errors import AssetReadError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")

# Of the maps: the number in bpf/conntrack.h that this release reads
LAYOUT = 2

EM_BPF = 247
SHT_SYMTAB = 2
SHT_NOBITS = 8

# Far more than an object of ours has
_MAX_SECTIONS = 1024
_MAX_NAME = 256

_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}


@dataclass(frozen=True)
class ObjectFile:
    """An object that has passed every check which needs no kernel.

    `constants` maps each variable of .rodata to (offset, size); `rodata` and `data` are the
    sections' initial bytes.
    """

    content: bytes
    sha256: str
    arch: str
    layout: int
    rodata: bytes
    data: bytes
    constants: dict[str, tuple[int, int]]

    def with_constants(self, values: dict[str, int]) -> bytes:
        """.rodata with `values` (unsigned, host byte order) in place.

        Raises AssetReadError if the object has no such constant or it cannot hold the value.
        """
        section = bytearray(self.rodata)
        for name, value in values.items():
            try:
                offset, size = self.constants[name]
                if offset + size > len(section):
                    raise OverflowError
                section[offset : offset + size] = value.to_bytes(size, "little")
            except (KeyError, OverflowError):
                raise AssetReadError(
                    f"the object has no constant {name} that can hold {value}: "
                    "use an object and a collection of the same release"
                ) from None
        return bytes(section)


def parse(content: bytes, name: str, arch: str | None = None) -> ObjectFile:
    """Checks an object's bytes; `name` is for messages, `arch` is the host's (`uname -m`).

    Raises AssetReadError with the first thing that is wrong.
    """
    if not content:
        raise AssetReadError(f"{name} is empty: expected a BPF object file")
    if content[:4] != b"\x7fELF":
        raise AssetReadError(f"{name} is not an ELF file: expected a BPF object file")
    try:
        return _parse_elf(content, name, arch or platform.machine())
    except (struct.error, IndexError, ValueError, OverflowError):
        raise AssetReadError(
            f"{name} is truncated or corrupt ({len(content)} bytes): copy it again"
        ) from None


def _parse_elf(content: bytes, name: str, arch: str) -> ObjectFile:
    header = _HEADER.unpack_from(content)
    ident, machine, shoff, shentsize, shnum, shstrndx = (
        header[0],
        header[2],
        header[6],
        header[11],
        header[12],
        header[13],
    )
    if ident[4] != 2 or ident[5] != 1:
        raise AssetReadError(
            f"{name} is not a 64-bit little-endian object: build it for this host's architecture"
        )
    if machine != EM_BPF:
        found = _MACHINES.get(machine, f"machine {machine}")
        raise AssetReadError(f"{name} holds {found} code, not BPF: expected a BPF object file")
    if shentsize != _SECTION.size or not shnum:
        raise ValueError("section headers")
    if shnum > _MAX_SECTIONS:
        raise AssetReadError(
            f"{name} has {shnum} sections, more than {_MAX_SECTIONS}: it is no object of ours"
        )
    headers = [_SECTION.unpack_from(content, shoff + i * shentsize) for i in range(shnum)]
    sizes = [_size(content, h) for h in headers]
    if sum(sizes) > len(content):
        raise AssetReadError(f"{name} has sections that lie over each other: copy it again")
    bodies = [content[h[4] : h[4] + size] for h, size in zip(headers, sizes)]
    names = [_string(bodies[shstrndx], h[0]) for h in headers]
    sections = dict(zip(names, bodies))
    about = _about(sections, name)
    if about["layout"] != str(LAYOUT):
        raise AssetReadError(
            f"{name} has map layout {about['layout']}, this release reads layout {LAYOUT}: "
            "use an object and a collection of the same release"
        )
    if about["arch"] != arch:
        raise AssetReadError(
            f"{name} is built for {about['arch']} hosts, this host is {arch}: "
            f"use conntrack-{arch}.bpf.o"
        )
    rodata = sections.get(".rodata", b"")
    index = names.index(".rodata") if ".rodata" in names else -1
    return ObjectFile(
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        arch=about["arch"],
        layout=int(about["layout"]),
        rodata=rodata,
        data=sections.get(".data", b""),
        constants=_symbols_of(index, headers, bodies),
    )


def _size(content: bytes, header: tuple[int, ...]) -> int:
    """How many bytes a section takes in the file."""
    if header[1] == SHT_NOBITS:
        return 0
    if header[4] + header[5] > len(content):
        raise ValueError("section beyond the end of the file")
    return header[5]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset, offset + _MAX_NAME)].decode("ascii")


def _about(sections: dict[str, bytes], name: str) -> dict[str, str]:
    text = sections.get("btfleet", b"").rstrip(b"\0").decode("ascii")
    about = dict(pair.split("=", 1) for pair in text.split())
    if not {"layout", "arch"} <= set(about):
        raise AssetReadError(
            f"{name} is a BPF object of another project (no btfleet section): "
            "expected conntrack-<arch>.bpf.o of this collection"
        )
    return about


def _symbols_of(
    section: int, headers: list[tuple[int, ...]], bodies: list[bytes]
) -> dict[str, tuple[int, int]]:
    symbols = {}
    for header, body in zip(headers, bodies):
        if header[1] != SHT_SYMTAB:
            continue
        strings = bodies[header[6]]
        for entry in _SYMBOL.iter_unpack(body):
            if entry[3] == section and entry[5]:
                symbols[_string(strings, entry[0])] = (entry[4], entry[5])
    return symbols
