# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong with an object is said in one line before libbpf sees it."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
from pathlib import Path

import pytest
from btfleet._kernel.bpf import object_file
from btfleet._kernel.errors import AssetReadError
from hypothesis import given, settings
from hypothesis import strategies as st

ARCHES = ["x86_64", "aarch64"]


@pytest.fixture(scope="session")
def good(objects: dict[str, Path]) -> bytes:
    return objects["x86_64"].read_bytes()


def refusal(content: bytes, arch: str = "x86_64") -> str:
    with pytest.raises(AssetReadError) as caught:
        object_file.parse(content, "the object", arch)
    assert "\n" not in str(caught.value)
    assert caught.value.result == "asset_read"
    return str(caught.value)


def patched(content: bytes, offset: int, new: bytes) -> bytes:
    return content[:offset] + new + content[offset + len(new) :]


def readelf(path: Path, what: str) -> str:
    """LLVM's reading of an ELF file."""
    done = subprocess.run(
        ["llvm-readelf", "-W", what, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout


def sections_of(path: Path) -> dict[str, tuple[int, int, int]]:
    """Number, offset and size, by name."""
    rows = re.findall(r"\[ *(\d+)\] (\S+) +\S+ +[0-9a-f]{16} (\S+) (\S+)", readelf(path, "-S"))
    return {name: (int(number), int(at, 16), int(size, 16)) for number, name, at, size in rows}


def constants_of(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each variable in .rodata."""
    number = sections_of(path)[".rodata"][0]
    rows = re.findall(
        rf"\d+: ([0-9a-f]+) +(\d+) OBJECT +\S+ +\S+ +{number} (\S+)", readelf(path, "-s")
    )
    return {name: (int(value, 16), int(size)) for value, size, name in rows}


@pytest.mark.parametrize("arch", ARCHES)
def test_a_good_object_is_described(objects: dict[str, Path], arch: str) -> None:
    content = objects[arch].read_bytes()
    parsed = object_file.parse(content, "the object", arch)
    assert (parsed.content, parsed.arch, parsed.layout) == (content, arch, 2)
    assert parsed.sha256 == hashlib.sha256(content).hexdigest()
    assert {"seed_portid", "tcpv6_enabled", "udpv6_enabled"} <= set(parsed.constants)


@pytest.mark.parametrize("arch", ARCHES)
def test_it_reads_sections_and_symbols_as_llvm_does(objects: dict[str, Path], arch: str) -> None:
    content = objects[arch].read_bytes()
    parsed = object_file.parse(content, "the object", arch)
    sections = sections_of(objects[arch])
    for name, found in ((".rodata", parsed.rodata), (".data", parsed.data)):
        _number, start, size = sections[name]
        assert found == content[start : start + size]
        assert found
    assert parsed.constants == constants_of(objects[arch])


def test_it_is_small_and_stripped(objects: dict[str, Path]) -> None:
    for path in objects.values():
        assert path.stat().st_size < 60_000
        assert not [name for name in sections_of(path) if name.startswith(".debug")]


def test_an_empty_file() -> None:
    assert refusal(b"") == "the object is empty: expected a BPF object file"


@pytest.mark.parametrize("content", [b"\x7f", b"\x7fEL", b"MZ", b"<html>" * 50, bytes(4096)])
def test_a_file_that_is_not_elf(content: bytes) -> None:
    assert "is not an ELF file" in refusal(content)


def test_a_truncated_file_of_any_length(good: bytes) -> None:
    for length in [*range(4, 64), *range(64, len(good), 97), len(good) - 1]:
        assert f"is truncated or corrupt ({length} bytes)" in refusal(good[:length])


@settings(max_examples=400)
@given(data=st.data())
def test_flipped_bytes_are_refused_or_harmless(good: bytes, data: st.DataObject) -> None:
    """Whatever they hit, no other exception comes out, here and when the constants are set."""
    content = bytearray(good)
    table = struct.unpack_from("<Q", good, 40)[0]
    anywhere = st.integers(0, len(good) - 1)
    headers = st.integers(0, 63) | st.integers(table, len(good) - 1)
    for position in data.draw(st.lists(anywhere | headers, min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255) | st.sampled_from([0, 0x7F, 0xFF]))
    try:
        parsed = object_file.parse(bytes(content), "the object", "x86_64")
        patched_section = parsed.with_constants({"seed_portid": 1, "tcpv6_enabled": 0})
    except AssetReadError:
        return
    assert len(patched_section) == len(parsed.rodata)


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_refused(rest: bytes) -> None:
    refusal(b"\x7fELF" + rest)


def test_section_offsets_beyond_any_memory_are_refused(good: bytes) -> None:
    for offset in (2**40, 2**63, 2**64 - 1):
        assert "truncated or corrupt" in refusal(patched(good, 40, struct.pack("<Q", offset)))


def test_an_object_for_another_architecture(objects: dict[str, Path]) -> None:
    assert refusal(objects["aarch64"].read_bytes()) == (
        "the object is built for aarch64 hosts, this host is x86_64: use conntrack-x86_64.bpf.o"
    )


@pytest.mark.parametrize(
    ("machine", "name"), [(62, "x86_64"), (183, "aarch64"), (3, "x86"), (8, "machine 8")]
)
def test_code_of_another_machine(good: bytes, machine: int, name: str) -> None:
    content = patched(good, 18, struct.pack("<H", machine))
    assert f"holds {name} code, not BPF" in refusal(content)


def test_a_program_of_this_host_is_not_taken() -> None:
    assert "code, not BPF" in refusal(Path("/bin/true").read_bytes())


@pytest.mark.parametrize(("offset", "value"), [(4, 1), (5, 2), (4, 0), (5, 0)])
def test_32_bit_and_big_endian_objects(good: bytes, offset: int, value: int) -> None:
    content = patched(good, offset, bytes([value]))
    assert "is not a 64-bit little-endian object" in refusal(content)


@pytest.mark.parametrize("text", [b"\0", b"\0hello world", b"\0layout=2", b"\0arch=x86_64"])
def test_an_object_of_another_project(good: bytes, text: bytes) -> None:
    """One without our section, or with one of that name which says something else."""
    about = b"layout=2 arch=x86_64"
    start = good.index(about)
    if text == b"\0":
        content = good.replace(b"\0btfleet\0", b"\0somebody\0"[:9] + b"\0")[: len(good)]
    else:
        content = patched(good, start, text[1:].ljust(len(about), b"\0"))
    message = refusal(content)
    assert "another project (no btfleet section)" in message or "truncated or corrupt" in message


def test_an_object_of_another_layout(good: bytes) -> None:
    content = good.replace(b"layout=2 arch", b"layout=1 arch")
    assert "has map layout 1, this release reads layout 2" in refusal(content)


def test_the_host_is_asked_for_its_architecture(
    good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(AssetReadError, match="this host is riscv64"):
        object_file.parse(good, "the object")


@pytest.mark.parametrize("arch", ARCHES)
def test_constants_are_set_at_their_place_and_nowhere_else(
    objects: dict[str, Path], arch: str
) -> None:
    parsed = object_file.parse(objects[arch].read_bytes(), "the object", arch)
    values = {"seed_portid": 0xA1B2C3D4, "tcpv6_enabled": 0, "udpv6_enabled": 7}
    expected = bytearray(parsed.rodata)
    for name in values:
        offset, size = constants_of(objects[arch])[name]
        expected[offset : offset + size] = values[name].to_bytes(8, "little")[:size]
    assert parsed.with_constants(values) == bytes(expected)
    assert parsed.with_constants({}) == parsed.rodata


@pytest.mark.parametrize(
    ("name", "value"),
    [("no_such", 1), ("tcpv6_enabled", 256), ("seed_portid", 2**32), ("seed_portid", -1)],
)
def test_a_constant_that_the_object_cannot_hold(good: bytes, name: str, value: int) -> None:
    parsed = object_file.parse(good, "the object", "x86_64")
    with pytest.raises(AssetReadError, match=f"no constant {name} that can hold {value}: "):
        parsed.with_constants({name: value})


def elf(sections: list[tuple[int, int, int]], body: bytes) -> bytes:
    """An ELF file of BPF code whose sections are (type, offset in `body`, size)."""
    headers = b"".join(
        struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, 64 + at, size, 0, 0, 1, 0)
        for kind, at, size in sections
    )
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack(
        *("<16sHHIQQQIHHHHHH", ident, 1, 247, 1, 0, 0, 64 + len(body)),
        *(0, 64, 0, 0, 64, len(sections), 0),
    )
    return header + body + headers


def test_sections_that_lie_over_each_other_are_not_copied() -> None:
    # 1,000 of them over the same 3.8 MB would take 3.8 GB
    body = b"\0" * 3_800_000
    content = elf([(1, 0, len(body))] * 1000, body)
    assert refusal(content) == ("the object has sections that lie over each other: copy it again")


def test_sixty_thousand_sections_are_refused_by_their_number() -> None:
    content = elf([(1, 0, 0)] * 60_000, b"\0")
    assert refusal(content) == (
        "the object has 60000 sections, more than 1024: it is no object of ours"
    )


def test_a_name_without_an_end_is_not_read_to_the_end_of_the_file() -> None:
    body = b"x" * 3_800_000
    content = elf([(1, 0, len(body)), *[(8, 0, 0)] * 1000], body)
    assert "truncated or corrupt" in refusal(content)
