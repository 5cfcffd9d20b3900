# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the kernel's headers, and what is made of the answers.

bcc itself answers in a guest: row no-btf-runtime of the matrix.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from btfleet._kernel.bpf.libbpf import Btf, Libbpf
from btfleet._kernel.btf import archive, header_types, needed_types
from btfleet._kernel.errors import BtfNotFound
from btfleet._kernel.host import facts
from btfleet._kernel.host.facts import NEEDED_MEMBERS

OBJECT = Path(__file__).parents[3] / "build/bpf/conntrack-x86_64.bpf.o"


@pytest.fixture
def answers() -> dict[str, int]:
    return {name: 8 * place for place, name in enumerate(header_types.questions())}


def members(tmp_path: Path, numbers: dict[str, int], name: str) -> dict[str, int] | None:
    path = tmp_path / "made.btf"
    path.write_bytes(needed_types.to_btf(numbers))
    with Btf.of_file(Libbpf(), str(path)) as btf:
        return btf.members(name)


def test_each_member_that_the_object_needs_is_asked_for_and_found(
    tmp_path: Path, answers: dict[str, int]
) -> None:
    for name, needed in NEEDED_MEMBERS.items():
        assert needed <= set(members(tmp_path, answers, name) or ())
    found = members(tmp_path, answers, "nf_conn")
    assert found == {
        name: answers[f"at_nf_conn_{name}"] * 8
        for name in ("zone", "tuplehash", "status", "ct_net")
    }


def test_a_member_that_the_kernel_is_built_without_is_left_out(
    tmp_path: Path, answers: dict[str, int]
) -> None:
    found = members(tmp_path, {**answers, "at_nf_conn_zone": -1}, "nf_conn")
    assert sorted(found or ()) == ["ct_net", "status", "tuplehash"]


def named_types(path: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        ["/usr/sbin/bpftool", "--json", "btf", "dump", "file", path],
        capture_output=True,
        check=True,
    )
    types = json.loads(done.stdout)["types"]
    return {one["name"]: one for one in types if one["kind"] in ("STRUCT", "UNION")}


def test_the_types_are_those_of_the_object(tmp_path: Path, answers: dict[str, int]) -> None:
    """Else a member that the object came to read would be missing on hosts without BTF alone."""
    made = tmp_path / "made.btf"
    made.write_bytes(needed_types.to_btf(answers))
    ours, theirs = named_types(made), named_types(OBJECT)
    for name, one in theirs.items():
        if name in ours and name != "(anon)":
            wanted = [member["name"] for member in one["members"]]
            assert [member["name"] for member in ours[name]["members"]] == wanted, name
    assert {"nf_conn", "nf_conntrack_tuple", "net", "sk_buff"} <= set(ours) & set(theirs)


def returning(number: int) -> bytes:
    return struct.pack("=BBhi", 0xB7, 0, 0, number) + struct.pack("=BBhi", 0x95, 0, 0, 0)


@pytest.mark.parametrize("number", [0, 152, -1])
def test_the_number_is_read_out_of_the_code(number: int) -> None:
    assert header_types.returned_number(returning(number)) == number


@pytest.mark.parametrize(
    "code",
    [b"", returning(1)[:8], returning(1) + bytes(8), b"\x18" + returning(1)[1:]],
    ids=["nothing", "no end", "more", "another operation"],
)
def test_code_that_does_anything_else_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match="no function that returns a number"):
        header_types.returned_number(code)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "In file included\n/v/main.c:3:10: fatal error: 'x.h' file not found\n1 error.\n",
            "/v/main.c:3:10: fatal error: 'x.h' file not found",
        ),
        (
            "Traceback:\n  File x\nModuleNotFoundError: No module named 'bcc'\n",
            "ModuleNotFoundError: No module named 'bcc'",
        ),
        ("", "no message"),
    ],
)
def test_of_a_compilers_messages_the_cause_is_shown(text: str, line: str) -> None:
    assert header_types.first_error(text) == line


def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A Python in place of the distribution's, to fail as it would."""
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(header_types, "PYTHON", str(path))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'main.c:1: error: no such header' >&2; exit 1", "main.c:1: error: no such header"),
        ("exec /usr/bin/no-such-python", "no-such-python"),
    ],
)
def test_a_compiler_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    python(tmp_path, monkeypatch, script)
    with pytest.raises(BtfNotFound, match=why) as caught:
        header_types.of_running(str(tmp_path / "kept"))
    assert "\n" not in str(caught.value)
    assert "install the headers of this very kernel" in str(caught.value)


def test_a_python_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_types, "PYTHON", "/nowhere/python3")
    with pytest.raises(BtfNotFound, match="No such file or directory"):
        header_types.of_running(str(tmp_path / "kept"))


def test_code_of_another_kind_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = json.dumps(["00" * 24] * len(header_types.questions()))
    python(tmp_path, monkeypatch, f"cat >/dev/null; echo '{code}'")
    with pytest.raises(BtfNotFound, match="something else than it was asked for"):
        header_types.of_running(str(tmp_path / "kept"))


# --- what is kept ---------------------------------------------------------------------------------


@pytest.fixture
def measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, int]
) -> tuple[Path, bytes]:
    """The file that a load leaves, and its BTF. There are headers, and no compiler any more."""
    build = tmp_path / "headers"
    (build / "include/generated").mkdir(parents=True)
    (build / "include/generated/autoconf.h").touch()
    monkeypatch.setattr(header_types, "headers_path", lambda: str(build))
    code = json.dumps([returning(number).hex() for number in answers.values()])
    python(tmp_path, monkeypatch, f"cat >/dev/null; echo '{code}'")
    content = header_types.of_running(str(tmp_path / "kept"))
    monkeypatch.setattr(header_types, "PYTHON", "/nowhere/python3")
    return tmp_path / "kept", content


def test_a_kernel_is_measured_once(measured: tuple[Path, bytes], answers: dict[str, int]) -> None:
    path, content = measured
    assert content == needed_types.to_btf(answers)
    assert header_types.kept(str(path)) == content
    assert header_types.of_running(str(path)) == content


def test_headers_that_have_gone_are_not_missed(
    measured: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, content = measured
    monkeypatch.setattr(header_types, "headers_path", lambda: None)
    assert header_types.of_running(str(path)) == content


def test_what_is_of_another_kernel_is_measured_again(
    measured: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(archive.running(), build="#2 SMP")
    monkeypatch.setattr(archive, "running", lambda: other)
    is_measured_again(measured[0])


def test_what_is_of_other_headers_is_measured_again(
    measured: tuple[Path, bytes], tmp_path: Path
) -> None:
    os.utime(tmp_path / "headers/include/generated/autoconf.h", (1, 1))
    is_measured_again(measured[0])


def test_what_answers_other_questions_is_measured_again(
    measured: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_types, "_INCLUDES", "#include <net/sock.h>\n")
    is_measured_again(measured[0])


def is_measured_again(path: Path) -> None:
    assert header_types.kept(str(path)) is None
    with pytest.raises(BtfNotFound, match="bcc cannot read the headers"):
        header_types.of_running(str(path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-40],
        lambda text: f"[{text}]",
        lambda text: text.replace('"size_nf_conn"', '"size_of_nothing"'),
        lambda text: re.sub(r'("size_nf_conn"): \d+', r'\1: "8"', text),
        lambda text: re.sub(r'("size_nf_conn"): \d+', r"\1: -8", text),
    ],
    ids=["cut short", "not an object", "a number missing", "no number", "out of range"],
)
def test_a_damaged_file_is_as_good_as_none(
    measured: tuple[Path, bytes], damage: Callable[[str], str]
) -> None:
    path, _content = measured
    path.write_text(damage(path.read_text()))
    assert header_types.kept(str(path)) is None


def test_a_disk_that_takes_nothing_does_not_refuse_the_load(
    measured: tuple[Path, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, int],
) -> None:
    code = json.dumps([returning(number).hex() for number in answers.values()])
    python(tmp_path, monkeypatch, f"cat >/dev/null; echo '{code}'")
    (tmp_path / "file").touch()
    assert header_types.of_running(str(tmp_path / "file/kept")) == measured[1]


def test_a_host_with_kept_types_needs_no_compiler(
    measured: tuple[Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = measured[0]
    monkeypatch.setattr(header_types.kept, "__defaults__", (str(path),))
    probes: dict[str, facts.Probe] = {}
    facts._runtime(probes)
    assert {one.value for one in probes.values()} == {facts.YES}
    path.unlink()
    facts._runtime(probes)
    assert probes["bcc"].value == (facts.YES if header_types.bcc_path() else facts.NO)
