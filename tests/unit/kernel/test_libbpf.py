# SPDX-License-Identifier: GPL-3.0-or-later
"""What libbpf says becomes one line; a libbpf that is missing or too old is named."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from btfleet._kernel.backends.programs import PROGRAMS
from btfleet._kernel.bpf import bpf, object_file
from btfleet._kernel.bpf.libbpf import BpfObject, Btf, Libbpf, refused_program, verifier_log
from btfleet._kernel.errors import BtfNotFound, LoaderError, VerifierError

from tests.matrix import old_libbpf
from tests.matrix.rows import OLD_LIBBPF
from tests.unit.kernel_access import bpftool, needs_bpf

needs_btf = pytest.mark.skipif(
    not os.path.exists("/sys/kernel/btf/vmlinux"), reason="this kernel gives no BTF"
)

# Captured: libbpf 1.1.2, kernel 6.18, the object with `r0 = *(u64 *)(r2 + 0)` put into it
REFUSED = [
    "libbpf: prog 'kprobe_delete': BPF program load failed: Permission denied",
    (
        "libbpf: prog 'kprobe_delete': -- BEGIN PROG LOAD LOG --\n"
        "0: R1=ctx() R10=fp0\n"
        ";  @ conntrack.bpf.c:369\n"
        "0: (79) r0 = *(u64 *)(r2 +0)\n"
        "R2 !read_ok\n"
        "processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 "
        "mark_read 0\n"
        "-- END PROG LOAD LOG --"
    ),
    "libbpf: prog 'kprobe_delete': failed to load: -13",
    "libbpf: failed to load object 'conntrack'",
]
# The form before libbpf 0.7
REFUSED_OLD = [
    "libbpf: load bpf program failed: Permission denied",
    "libbpf: -- BEGIN DUMP LOG ---",
    "libbpf: \n0: (79) r0 = *(u64 *)(r2 +0)\nR2 !read_ok\nprocessed 1 insns (limit 1000000)\n",
    "libbpf: -- END LOG --",
    "libbpf: failed to load program 'kprobe_delete'",
]
# Captured: the same machine refuses tracing programs before it verifies them
FORBIDDEN = [
    "libbpf: prog 'fentry_insert': BPF program load failed: Operation not permitted",
    "libbpf: permission error while running as root; try raising 'ulimit -l'? current value: 8 MiB",
    "libbpf: prog 'fentry_insert': failed to load: -1",
    "libbpf: failed to load object 'conntrack'",
]


@pytest.fixture(scope="module")
def lib() -> Libbpf:
    try:
        return Libbpf()
    except LoaderError as exc:
        pytest.skip(str(exc))


# --- what libbpf says ----------------------------------------------------------------------------


def test_the_log_is_the_verifiers_own_last_lines() -> None:
    assert verifier_log(REFUSED) == (
        ";  @ conntrack.bpf.c:369 | 0: (79) r0 = *(u64 *)(r2 +0) | R2 !read_ok"
    )
    assert verifier_log(REFUSED, lines=1) == "R2 !read_ok"
    assert refused_program(REFUSED) == "program kprobe_delete"


def test_the_log_of_an_older_libbpf() -> None:
    assert verifier_log(REFUSED_OLD, lines=2).endswith("R2 !read_ok")
    assert "\n" not in verifier_log(REFUSED_OLD)


def test_of_two_logs_the_last_one_counts() -> None:
    """libbpf tries again with a larger buffer."""
    first = [message.replace("R2 !read_ok", "first") for message in REFUSED]
    assert verifier_log(first + REFUSED, lines=1) == "R2 !read_ok"


def test_a_log_that_was_cut_off_is_used_to_its_end() -> None:
    cut = REFUSED[1].split("\n-- END", maxsplit=1)[0]
    assert verifier_log([cut], lines=1) == "R2 !read_ok"


@pytest.mark.parametrize("messages", [[], [""], FORBIDDEN, ["libbpf: elf: something"]])
def test_messages_without_a_log_have_none(messages: list[str]) -> None:
    assert verifier_log(messages) == ""


def test_a_program_is_named_without_a_log_too() -> None:
    assert refused_program(FORBIDDEN) == "program fentry_insert"
    assert refused_program([]) is None


def with_instruction(path: Path, section: str, instruction: bytes) -> bytes:
    """The object with another first instruction in a section."""
    table = subprocess.run(
        ["llvm-readelf", "-W", "-S", str(path)], capture_output=True, text=True, check=True
    ).stdout
    match = re.search(rf"\] {re.escape(section)} +\S+ +[0-9a-f]{{16}} (\S+)", table)
    assert match
    content = bytearray(path.read_bytes())
    at = int(match.group(1), 16)
    content[at : at + 8] = instruction
    return bytes(content)


@needs_bpf
@needs_btf
def test_a_program_that_the_verifier_refuses(lib: Libbpf, objects: dict[str, Path]) -> None:
    content = with_instruction(
        objects[os.uname().machine],
        "kprobe/__nf_ct_delete_from_lists",
        struct.pack("=BBhi", 0x79, 0x20, 0, 0),  # r0 = *(u64 *)(r2 + 0)
    )
    with BpfObject(lib, content, None) as obj:
        obj.select(["kprobe_insert", "kprobe_delete"], PROGRAMS)
        with pytest.raises((VerifierError, LoaderError)) as refusal:
            obj.load()
    if isinstance(refusal.value, LoaderError):
        pytest.skip(f"this machine loads no kprobe programs: {refusal.value}")
    message = str(refusal.value)
    assert message.startswith("the kernel's verifier refused program kprobe_delete: ")
    assert message.endswith("R2 !read_ok")
    assert len(message.splitlines()) == 1


# --- the library itself --------------------------------------------------------------------------


def test_a_missing_library() -> None:
    with pytest.raises(LoaderError) as caught:
        Libbpf(("libbpf-none.so.1", "libbpf-none.so.0"))
    assert str(caught.value) == (
        "libbpf is missing (looked for libbpf-none.so.1 and libbpf-none.so.0), libbpf 0.5 or newer "
        "is needed: install the package libbpf1 (Debian: libbpf1 or libbpf0, Red Hat: libbpf)"
    )


def test_a_library_that_is_too_old(tmp_path: Path) -> None:
    """One with libbpf's oldest function alone."""
    library = tmp_path / "old.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"],
        input="void *libbpf_set_print(void *f) { return f; }",
        text=True,
        check=True,
    )
    with pytest.raises(LoaderError) as caught:
        Libbpf((str(library),))
    assert str(caught.value).startswith("libbpf at ")
    assert "is too old (it has no bpf_object__open_mem), libbpf 0.5 or newer" in str(caught.value)


# In a process of its own: two libraries of this name in one are not what a host has
REUSE = """
import sys
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.libbpf import BpfObject, Libbpf
with open(sys.argv[2], "rb") as stream:
    content = stream.read()
with BpfObject(Libbpf((sys.argv[1],)), content, None) as obj:
    obj.set_max_entries("conntrack_closed", 64)
    obj.reuse_map("conntrack_closed", bpf.map_create(bpf.LRU_HASH, 44, 64, 64))
    print(obj.map_fd("conntrack_closed") > 0)
"""


@needs_bpf
def test_a_map_that_was_reused_is_found_with_an_older_libbpf_too(
    objects: dict[str, Path],
) -> None:
    """libbpf 0.8 for real: it then calls the map by the kernel's shorter name."""
    if os.uname().machine != "x86_64":
        pytest.skip("there is none for this architecture")
    old_libbpf.fetch(OLD_LIBBPF)
    done = subprocess.run(
        [sys.executable, "-c", REUSE, OLD_LIBBPF, objects["x86_64"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_second_name_is_tried(lib: Libbpf) -> None:
    assert Libbpf(("libbpf-none.so.1", lib.path)).path == lib.path


def test_it_says_which_library_it_is(lib: Libbpf) -> None:
    assert os.path.exists(lib.path)
    version = ctypes.CDLL(lib.path)
    if hasattr(version, "libbpf_major_version"):
        expected = f"{version.libbpf_major_version()}.{version.libbpf_minor_version()}"
        assert lib.version == expected


def test_a_null_pointer_and_a_negative_number_are_errors(lib: Libbpf) -> None:
    with pytest.raises(OSError, match="No such file"):
        lib.call("btf__parse", b"/no/such/file", None)
    with Btf.of_kernel(lib) as btf, pytest.raises(OSError, match="No such file"):
        lib.call("btf__find_by_name_kind", btf._handles[0], b"no_such_type", 4)


# --- the object ----------------------------------------------------------------------------------


def test_content_that_is_no_object_is_refused_in_one_line(lib: Libbpf) -> None:
    with pytest.raises(LoaderError, match=r"^libbpf \S+ cannot open the object: ") as caught:
        BpfObject(lib, b"\x7fELF" + bytes(100), None)
    assert len(str(caught.value).splitlines()) == 1


def test_maps_and_programs_that_the_object_lacks(lib: Libbpf, own_object: bytes) -> None:
    with BpfObject(lib, own_object, None) as obj:
        with pytest.raises(LoaderError, match="the object has no map nothing: "):
            obj.set_max_entries("nothing", 1024)
        with pytest.raises(LoaderError, match="the object has no program nothing: "):
            obj.select([], ["nothing"])


def test_the_object_has_the_programs_that_a_load_chooses_from(
    lib: Libbpf, own_object: bytes
) -> None:
    with BpfObject(lib, own_object, None) as obj:
        obj.select([], PROGRAMS)


@needs_bpf
@needs_btf
def test_a_load_has_the_sizes_and_constants_that_were_asked_for(
    lib: Libbpf, own_object: bytes
) -> None:
    """bpftool reads back what the kernel got."""
    parsed = object_file.parse(own_object, "the object")
    rodata = parsed.with_constants({"seed_portid": 0x80000001, "udpv6_enabled": 0})
    with BpfObject(lib, own_object, None) as obj:
        obj.select(["kprobe_insert", "kprobe_delete", "kprobe_seed"], PROGRAMS)
        obj.set_rodata(rodata)
        obj.set_max_entries("conntrack_live", 2048)
        obj.set_max_entries("conntrack_closed", 1024)
        try:
            obj.load()
        except LoaderError as exc:
            pytest.skip(f"this machine loads no kprobe programs: {exc}")
        shown = {
            name: bpftool("map", "show", "id", str(map_id(obj.map_fd(name))))
            for name in ("conntrack_live", "conntrack_closed", "counters")
        }
        assert shown["conntrack_live"]["max_entries"] == 2048
        assert shown["conntrack_live"]["type"] == "hash"
        assert shown["conntrack_closed"]["max_entries"] == 1024
        assert shown["conntrack_closed"]["type"] == "lru_hash"
        assert shown["counters"]["type"] == "percpu_array"
        fd = obj.map_fd(".rodata")
        value = bpf.map_lookup(fd, bytes(4), bpf.map_info(fd).value_size)
        assert (value or b"")[: len(rodata)] == rodata
        assert obj.program_fd("kprobe_insert") > 0
        with pytest.raises(OSError, match=r"Invalid argument|No such file|Bad file"):
            obj.program_fd("fentry_insert")


def map_id(fd: int) -> int:
    return int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("map_id:")[1].split()[0])


@needs_bpf
@needs_btf
def test_nothing_stays_open_after_a_load(lib: Libbpf, own_object: bytes) -> None:
    before = os.listdir("/proc/self/fd")
    for _attempt in range(2):
        with BpfObject(lib, own_object, None) as obj:
            obj.select(["kprobe_insert"], PROGRAMS)
            try:
                obj.load()
            except LoaderError as exc:
                pytest.skip(f"this machine loads no kprobe programs: {exc}")
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- BTF -----------------------------------------------------------------------------------------


@needs_btf
def test_members_and_functions_are_those_of_bpftool(lib: Libbpf) -> None:
    types = bpftool("btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "raw")["types"]
    (declared,) = [t for t in types if t["kind"] == "STRUCT" and t["name"] == "list_head"]
    with Btf.of_kernel(lib) as btf:
        assert btf.members("list_head") == {
            member["name"]: member["bits_offset"] for member in declared["members"]
        }
        ids = {t["id"] for t in types if t["kind"] == "FUNC" and t["name"] == "kernel_clone"}
        assert btf.function("kernel_clone") in ids
        assert btf.members("no_such_struct") is None
        assert btf.function("no_such_function") is None


def test_the_objects_own_btf_is_read_from_its_file(lib: Libbpf, objects: dict[str, Path]) -> None:
    with Btf.of_file(lib, str(objects["x86_64"])) as btf:
        assert btf.members("ns_common") == {"inum": 0}
        assert btf.members("task_struct") is None


def test_a_file_that_is_not_btf(lib: Libbpf, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("not BTF at all\n" * 100)
    with pytest.raises(BtfNotFound) as caught:
        Btf.of_file(lib, str(path))
    assert str(caught.value).startswith(f"btf_path {path} is not BTF (")
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_btf_file(lib: Libbpf, tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_bytes(bytes.fromhex("9feb01001800000000000000ff000000"))
    with pytest.raises(BtfNotFound, match="is not BTF"):
        Btf.of_file(lib, str(path))


@pytest.mark.parametrize("name", ["nothing", ""])
def test_a_btf_file_that_does_not_exist(lib: Libbpf, tmp_path: Path, name: str) -> None:
    """A folder is no file either."""
    with pytest.raises(BtfNotFound, match="does not exist: give a BTF file of this kernel"):
        Btf.of_file(lib, str(tmp_path / name))


def test_messages_are_taken_once(lib: Libbpf) -> None:
    lib.take_messages()
    with pytest.raises(OSError, match="No such file"):
        lib.call("btf__parse", b"/no/such/file", None)
    with pytest.raises(LoaderError):
        BpfObject(lib, b"nonsense", None)
    assert lib.take_messages() == []
