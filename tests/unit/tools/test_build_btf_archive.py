# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels' types: found in what is installed, merged with a module's, cut down to what is read."""

from __future__ import annotations

import gzip
import json
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from tools import build_btf_archive as built
from tools.build_btf_archive import ArchiveError

INT, PTR, STRUCT = 1, 2, 4


def btf(types: bytes, text: bytes) -> bytes:
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + (
        types + text
    )


def a_type(name: int, kind: int, vlen: int, size: int, rest: bytes = b"") -> bytes:
    return struct.pack("<III", name, kind << 24 | vlen, size) + rest


KERNEL_TEXT = b"\0int\0kernel_only\0"
KERNEL = btf(a_type(1, INT, 0, 4, struct.pack("<I", 32)), KERNEL_TEXT)
# A module's type numbers and string offsets go on where the kernel's end
MEMBER = struct.pack("<III", len(KERNEL_TEXT) + 8, 1, 64)
MODULE = btf(a_type(len(KERNEL_TEXT), STRUCT, 1, 16, MEMBER), b"nf_conn\0status\0")


def test_a_modules_types_are_merged_into_the_kernels(tmp_path: Path) -> None:
    path = tmp_path / "merged.btf"
    path.write_bytes(built.merge(KERNEL, MODULE))
    said = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", path], capture_output=True, check=True
    )
    kernel, module = json.loads(said.stdout)["types"]
    assert (kernel["id"], kernel["name"]) == (1, "int")
    assert (module["id"], module["name"], module["size"]) == (2, "nf_conn", 16)
    assert module["members"] == [{"name": "status", "type_id": 1, "bits_offset": 64}]


def test_what_is_no_btf_is_refused() -> None:
    with pytest.raises(ArchiveError, match="found no little-endian BTF"):
        built.merge(bytes(64), MODULE)


def elf(sections: dict[bytes, bytes]) -> bytes:
    names = b"\0" + b"".join(name + b"\0" for name in [*sections, b".shstrtab"])
    body, headers = b"", [bytes(64)]
    for name, content in {**sections, b".shstrtab": names}.items():
        headers.append(
            struct.pack(
                "<IIQQQQIIQQ",
                names.index(name + b"\0"),
                1,
                0,
                0,
                64 + len(body),
                len(content),
                0,
                0,
                1,
                0,
            )
        )
        body += content
    head = b"\x7fELF\x02\x01\x01".ljust(40, b"\0") + struct.pack("<Q", 64 + len(body))
    head += bytes(10) + struct.pack("<HHH", 64, len(headers), len(headers) - 1)
    return head + body + b"".join(headers)


def test_a_section_is_found_by_its_whole_name() -> None:
    file = elf({b".BTF.ext": b"other", b".BTF": b"types"})
    assert built.section(file, b".BTF") == b"types"
    assert built.section(file, b".text") is None
    with pytest.raises(ArchiveError, match="ELF"):
        built.section(b"#!/bin/sh", b".BTF")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
def test_what_stands_behind_the_packed_kernel_does_not_matter(pack: object) -> None:
    content = b"\x7fELF" + bytes(1000)
    packed = pack(content)  # type: ignore[operator]
    assert built.unpack(packed + (b"" if pack is bytes else b"\0\0\1\0")) == content


def image(vmlinux: bytes, text: bytes) -> bytes:
    """An x86 kernel image with one sector of set-up code."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x300 - 0x200)
    head[0x300 : 0x300 + len(text)] = text
    packed = lzma.compress(vmlinux)
    struct.pack_into("<II", head, 0x248, 16, len(packed))
    return bytes(head) + bytes(16) + packed


def test_an_installed_kernel_is_told_by_what_uname_would_say(tmp_path: Path) -> None:
    text = b"6.1.0-40-amd64 (debian-kernel@lists.debian.org) #1 SMP Debian 6.1.153-1 (2025-09-20)"
    (tmp_path / "boot").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "boot/vmlinuz-6.1").write_bytes(image(elf({b".BTF": KERNEL}), text))
    module = tmp_path / "lib/modules/6.1.0-40-amd64/kernel/net/netfilter/nf_conntrack.ko.xz"
    module.parent.mkdir(parents=True)
    module.write_bytes(lzma.compress(elf({b".BTF": MODULE})))
    ((kernel, types),) = built.kernels_in(tmp_path)
    assert kernel.member == (
        "debian/12/x86_64/6.1.0-40-amd64/_1_SMP_Debian_6.1.153-1_2025-09-20_.btf"
    )
    assert types == built.merge(KERNEL, MODULE)


def test_the_same_members_give_the_same_archive(tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"
    built.write_members({"a": b"1", "b": b"2"}, one)
    built.write_members({"b": b"2", "a": b"1"}, two)
    assert one.read_bytes() == two.read_bytes()
    assert built.read_members(one) == {"a": b"1", "b": b"2"}
