# SPDX-License-Identifier: GPL-3.0-or-later
"""User space and the object mean the same bytes; bpftool's reading of the object's BTF decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from btfleet._kernel.bpf import bpf, object_file
from btfleet._kernel.conntrack import layout
from btfleet._kernel.host import facts

from tests.unit.kernel_access import bpftool, hash_map, needs_bpf

Types = dict[int, dict[str, Any]]


@pytest.fixture(scope="session", params=["x86_64", "aarch64"])
def types(request: pytest.FixtureRequest, objects: dict[str, Path]) -> Types:
    answer = bpftool("btf", "dump", "file", str(objects[request.param]), "format", "raw")
    return {entry["id"]: entry for entry in answer["types"]}


def named(types: Types, kind: str, name: str) -> dict[str, Any]:
    (found,) = [t for t in types.values() if t["kind"] == kind and t["name"] == name]
    return found


def size_of(types: Types, type_id: int) -> int:
    entry = types[type_id]
    while "size" not in entry:
        entry = types[entry["type_id"]]
    return int(entry["size"])


def offsets(types: Types, struct_name: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each member, in bytes."""
    members = named(types, "STRUCT", struct_name)["members"]
    return {m["name"]: (m["bits_offset"] // 8, size_of(types, m["type_id"])) for m in members}


def pack_only(layout_struct: Any, position: int) -> bytes:
    """A record in which one field has all bits set."""
    fields = [
        0xFF if code == "B" else 0xFFFF if code == "H" else 0xFFFFFFFF if code == "I" else 2**64 - 1
        for code in layout_struct.format.replace("16s", "s").lstrip("=")
    ]
    values: list[Any] = []
    for index, code in enumerate(layout_struct.format.replace("16s", "s").lstrip("=")):
        on = index == position
        values.append((b"\xff" * 16 if on else bytes(16)) if code == "s" else on * fields[index])
    return bytes(layout_struct.pack(*values))


@pytest.mark.parametrize(
    ("struct_name", "record", "members"),
    [
        (
            "conntrack_key",
            layout.KEY,
            ["netns", "zone", "family", "protocol", "saddr", "daddr", "sport", "dport"],
        ),
        (
            "conntrack_value",
            layout.VALUE,
            [
                *("ct", "created_ns", "closed_ns", "saddr", "daddr"),
                *("sport", "dport", "zone", "flags", "generation"),
            ],
        ),
        (
            "conntrack_load",
            layout.LOAD,
            ["copy_since_ns", "stale_before_ns", "generation"],
        ),
    ],
)
def test_every_member_lies_where_the_object_has_it(
    types: Types, struct_name: str, record: Any, members: list[str]
) -> None:
    assert record.size == named(types, "STRUCT", struct_name)["size"]
    found = offsets(types, struct_name)
    assert list(found) == members
    for position, name in enumerate(members):
        offset, size = found[name]
        expected = bytearray(record.size)
        expected[offset : offset + size] = b"\xff" * size
        assert pack_only(record, position) == bytes(expected), name


def test_flags_and_generation_are_where_single_bytes_are_read(types: Types) -> None:
    found = offsets(types, "conntrack_value")
    assert found["flags"] == (layout.FLAGS_OFFSET, 1)
    assert found["generation"] == (layout.GENERATION_OFFSET, 1)


def test_there_is_no_padding(types: Types) -> None:
    for name in ("conntrack_key", "conntrack_value"):
        position = 0
        for offset, size in offsets(types, name).values():
            assert offset == position
            position += size
        assert position == named(types, "STRUCT", name)["size"]


def test_counters_have_the_same_names_in_the_same_order(types: Types, checkout: Path) -> None:
    header = (checkout / "bpf" / "conntrack.h").read_text()
    body = header.split("enum conntrack_counter {")[1].split("}")[0]
    names = [line.split(",")[0].strip() for line in body.splitlines() if "COUNTER_" in line]
    assert names[-1] == "COUNTER_COUNT"
    assert [f"COUNTER_{name.upper()}" for name in layout.COUNTERS] == names[:-1]
    (size,) = maps_of(types)["counters"]["max_entries"]
    assert size == len(layout.COUNTERS)


def maps_of(types: Types) -> dict[str, dict[str, list[int]]]:
    """Each map's declaration: `type` and `max_entries` are array lengths, key and value types."""
    (section,) = [t for t in types.values() if t["kind"] == "DATASEC" and t["name"] == ".maps"]
    result = {}
    for variable in section["vars"]:
        declared = types[variable["type_id"]]
        fields: dict[str, list[int]] = {}
        for member in types[declared["type_id"]]["members"]:
            target = types[types[member["type_id"]]["type_id"]]
            number = target.get("nr_elems")
            fields[member["name"]] = [
                size_of(types, types[member["type_id"]]["type_id"]) if number is None else number
            ]
        result[declared["name"]] = fields
    return result


def test_maps_have_the_declared_shapes(types: Types) -> None:
    found = maps_of(types)
    # what running calls were made with is the programs' own affair, and is not pinned
    assert set(found) == {*layout.SHAPES, "calls"}
    for name, shape in layout.SHAPES.items():
        assert found[name]["type"] == [shape.type]
        assert found[name]["key"] == [shape.key_size]
        assert found[name]["value"] == [shape.value_size]


def test_the_header_has_the_same_layout_number_and_flags(checkout: Path) -> None:
    header = (checkout / "bpf" / "conntrack.h").read_text()
    assert f"#define CONNTRACK_LAYOUT {object_file.LAYOUT}\n" in header
    assert f"#define CONNTRACK_ORIG {layout.FLAG_ORIG} " in header
    assert f"#define CONNTRACK_SEEDED {layout.FLAG_SEEDED} " in header


def test_the_probed_kernel_types_are_those_that_the_object_reads(types: Types) -> None:
    """`zone` is optional; what is only a way to another type is not asked for by name."""
    for name, members in facts.NEEDED_MEMBERS.items():
        declared = {member["name"] for member in named(types, "STRUCT", name)["members"]}
        assert members <= declared, name
        assert declared - members <= {"zone"}, name


@needs_bpf
def test_counters_are_summed_over_cpus() -> None:
    """bpftool writes the same value on every CPU."""
    with hash_map(4, 8, len(layout.COUNTERS), bpf.PERCPU_ARRAY) as fd:
        map_id = str(bpf.map_info(fd).id)
        for index in range(len(layout.COUNTERS)):
            value = [*(index + 1).to_bytes(8, "little")]
            bpftool(
                *("map", "update", "id", map_id, "key", "hex", f"{index:02x}", "0", "0", "0"),
                *("value", "hex", *[f"{byte:02x}" for byte in value]),
            )
        cpus = len(bpftool("map", "lookup", "id", map_id, "key", "0", "0", "0", "0")["values"])
        assert layout.possible_cpus() == cpus
        counters = layout.read_counters(fd)
    assert list(counters) == list(layout.COUNTERS)
    assert list(counters.values()) == [cpus * (i + 1) for i in range(len(layout.COUNTERS))]


@needs_bpf
def test_counters_of_a_smaller_map_are_zero_where_it_ends() -> None:
    with hash_map(4, 8, 2, bpf.PERCPU_ARRAY) as fd:
        assert set(layout.read_counters(fd).values()) == {0}
