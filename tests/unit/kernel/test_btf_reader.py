# SPDX-License-Identifier: GPL-3.0-or-later
"""Layouts that are read without libbpf are those that bpftool reads; other bytes are refused."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from btfleet._kernel.bpf.libbpf import Btf, Libbpf
from btfleet._kernel.btf import needed_types
from btfleet._kernel.btf.reader import STRUCT, UNION, RawBtf
from btfleet._kernel.host import facts
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.matrix import old_libbpf
from tests.matrix.rows import OLD_LIBBPF
from tests.unit.kernel_access import bpftool, needs_bpf

VMLINUX = Path("/sys/kernel/btf/vmlinux")
OBJECT = Path(__file__).parents[3] / "build/bpf/conntrack-x86_64.bpf.o"
needs_btf = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel gives no BTF")
needs_old_libbpf = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="there is none for this architecture"
)


@pytest.fixture(scope="module")
def own() -> bytes:
    """BTF of the object, which has all that it needs of a kernel."""
    done = subprocess.run(
        ["llvm-objcopy", "--dump-section=.BTF=/dev/stdout", OBJECT, "/dev/null"],
        capture_output=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "path", [OBJECT, pytest.param(VMLINUX, marks=needs_btf)], ids=["the object", "this kernel"]
)
def test_sizes_and_members_are_those_that_bpftool_reads(path: Path, own: bytes) -> None:
    btf = RawBtf(own if path == OBJECT else path.read_bytes())
    wanted = {shape.name for shape in needed_types.SHAPES.values() if shape.name}
    checked = set()
    for one in bpftool("btf", "dump", "file", str(path))["types"]:
        if one["name"] not in wanted or one["kind"] not in ("STRUCT", "UNION"):
            continue
        number = btf.find(one["name"], STRUCT if one["kind"] == "STRUCT" else UNION)
        assert number is not None
        assert number == one["id"]
        assert btf.size(number) == one["size"]
        assert btf.members(number) == {
            member["name"]: (member["type_id"], member["bits_offset"])
            for member in one["members"]
            if member["name"] != "(anon)"
        }
        checked.add(one["name"])
    assert {"nf_conn", "nf_conntrack_tuple", "sk_buff"} <= checked


@needs_btf
def test_what_is_written_of_this_kernel_is_what_libbpf_reads_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rewritten"
    path.write_bytes(needed_types.of_kernel("nf_conntrack"))
    lib = Libbpf()
    with Btf.of_kernel(lib, "nf_conntrack") as kernel, Btf.of_file(lib, str(path)) as rewritten:
        for name, members in facts.NEEDED_MEMBERS.items():
            here, there = kernel.members(name) or {}, rewritten.members(name) or {}
            assert members <= set(there)
            assert there == {member: here[member] for member in there}


def split(kernel: bytes) -> bytes:
    """BTF of a module with one struct of its own, of an integer of the kernel's, laid by hand."""
    whole = RawBtf(kernel)
    strings = struct.unpack_from("=I", kernel, 20)[0]
    text = b"nf_conn\0mine\0"
    body = struct.pack("=III", strings, STRUCT << 24 | 1, 8)
    body += struct.pack("=III", strings + 8, 1, 32)
    assert whole.find("nf_conn")
    return (
        struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(text)) + body + text
    )


def test_a_modules_types_go_on_where_the_kernels_end(own: bytes) -> None:
    both = RawBtf(own, split(own))
    alone = RawBtf(own)
    found = {both.find("nf_conn"), alone.find("nf_conn")}
    assert None not in found
    assert both.find("nf_conntrack_tuple") == alone.find("nf_conntrack_tuple")


def test_a_struct_that_the_module_alone_has_is_found(own: bytes) -> None:
    other = own.replace(b"\0nf_conn\0", b"\0nf_gone\0")
    assert RawBtf(other).find("nf_conn") is None
    number = RawBtf(other, split(own)).find("nf_conn")
    assert number
    assert RawBtf(other, split(own)).members(number) == {"mine": (1, 32)}


def test_what_a_kernel_does_not_have_is_left_out(own: bytes, tmp_path: Path) -> None:
    """Before the module comes, nf_conn may be described nowhere, which is said as ever."""
    path = tmp_path / "btf"
    path.write_bytes(needed_types.rewrite(own.replace(b"\0nf_conn\0", b"\0nf_gone\0")))
    with Btf.of_file(Libbpf(), str(path)) as btf:
        assert btf.members("nf_conn") is None
        assert btf.members("sk_buff")


def test_a_name_that_leads_round_in_a_circle_is_refused() -> None:
    body = struct.pack("=III", 0, 8 << 24, 2) + struct.pack("=III", 0, 8 << 24, 1)
    content = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), 1) + body + b"\0"
    with pytest.raises(ValueError, match="circle"):
        RawBtf(content).element(1)


@pytest.mark.parametrize("module", [False, True])
def test_an_empty_file_is_no_kernels_btf(own: bytes, module: bool) -> None:
    with pytest.raises(ValueError, match="cut short"):
        needed_types.rewrite(b"", own if module else b"")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_are_refused_and_nothing_else_happens(
    own: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(own)
    for place in data.draw(st.lists(st.integers(0, len(own) - 1), max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(own)))])
    with contextlib.suppress(ValueError):
        needed_types.rewrite(cut)


# In a process of its own: two libraries of this name in one are not what a host has
WITH_OLD_LIBBPF = """
import json, sys
from btfleet._kernel.bpf import libbpf
from btfleet._kernel.host import facts
libbpf.Libbpf.__init__.__defaults__ = ((sys.argv[1],),)
print(json.dumps(facts.gather().to_dict()))
"""


@needs_bpf
@needs_btf
@needs_old_libbpf
def test_a_libbpf_older_than_the_kernels_types_is_given_them_in_another_form() -> None:
    """libbpf 0.8 for real: it knows no 64-bit enums, which kernels have since 6.0."""
    old_libbpf.fetch(OLD_LIBBPF)
    done = subprocess.run(
        [sys.executable, "-c", WITH_OLD_LIBBPF, OLD_LIBBPF], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["libbpf"] == {"path": str(OLD_LIBBPF), "version": "0.8"}
    probes = found["probes"]
    if probes["kernel_btf"]["value"] == "yes":
        pytest.skip("it can read this kernel's types")
    assert (found["btf"]["source"], found["btf"]["result"]) == ("kernel", "default")
    assert found["btf"]["rewritten"]
    assert probes["btf"]["value"] == "yes"
    function = probes["btf_function:__nf_ct_delete_from_lists"]
    assert function["value"] == "no"
    assert function["evidence"].startswith("libbpf 0.8 does not read the kernel's BTF")
