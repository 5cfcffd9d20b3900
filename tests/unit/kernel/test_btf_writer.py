# SPDX-License-Identifier: GPL-3.0-or-later
"""BTF that we write, as bpftool reads it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from btfleet._kernel.btf import writer
from btfleet._kernel.btf.writer import Composite

SHAPES = {
    "inner": Composite("inner", 6, (("port", "u16", 4),), is_union=True),
    "unnamed": Composite("", 32, (("all", "u32[4]", 8), ("flag", "u8", 24))),
    "outer": Composite(
        "outer", 128, (("next", "outer*", 0), ("pair", "inner[2]", 16), ("in", "unnamed", 64))
    ),
    "empty": Composite("empty", 0, ()),
}


def as_read(tmp_path: Path, raw: bytes) -> list[dict[str, Any]]:
    path = tmp_path / "types.btf"
    path.write_bytes(raw)
    done = subprocess.run(
        ["/usr/sbin/bpftool", "--json", "btf", "dump", "file", path],
        capture_output=True,
        check=True,
    )
    types: list[dict[str, Any]] = json.loads(done.stdout)["types"]
    return types


def test_what_is_written_is_what_bpftool_reads(tmp_path: Path) -> None:
    types = as_read(tmp_path, writer.write(SHAPES))
    by_id = {one["id"]: one for one in types}
    assert list(by_id) == list(range(1, len(types) + 1))
    by_name = {one["name"]: one for one in types}

    outer = by_name["outer"]
    assert (outer["kind"], outer["size"]) == ("STRUCT", 128)
    assert [(one["name"], one["bits_offset"]) for one in outer["members"]] == [
        ("next", 0),
        ("pair", 128),
        ("in", 512),
    ]
    pointer, pair, unnamed = (by_id[one["type_id"]] for one in outer["members"])
    assert (pointer["kind"], pointer["type_id"]) == ("PTR", outer["id"])
    assert (pair["kind"], pair["nr_elems"], pair["type_id"]) == ("ARRAY", 2, by_name["inner"]["id"])
    assert by_name["inner"]["kind"] == "UNION"
    assert (unnamed["name"], unnamed["kind"]) == ("(anon)", "STRUCT")
    words, flag = (by_id[one["type_id"]] for one in unnamed["members"])
    assert (words["nr_elems"], by_id[words["type_id"]]["size"]) == (4, 4)
    assert (flag["kind"], flag["size"], flag["nr_bits"]) == ("INT", 1, 8)
    assert by_name["empty"]["members"] == []


def test_a_type_that_nobody_describes_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        writer.write({"one": Composite("one", 8, (("it", "nothing", 0),))})
