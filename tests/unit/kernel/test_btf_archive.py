# SPDX-License-Identifier: GPL-3.0-or-later
"""Types from the archive: the very kernel's, else those of its other build, else none."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet._kernel.btf import archive
from btfleet._kernel.btf.archive import Kernel, choose, find
from btfleet._kernel.errors import BtfNotFound

KERNEL = Kernel("debian", "12", "x86_64", "6.1.0-40-amd64", "#1 SMP Debian 6.1.153-1 (2025-09-20)")
OTHER_BUILD = replace(KERNEL, build="#1 SMP Debian 6.1.158-1 (2025-11-09)")
OLDER_BUILD = replace(KERNEL, build="#1 SMP Debian 6.1.147-1 (2025-08-02)")


def test_a_member_is_named_after_all_that_a_kernel_is_told_by() -> None:
    assert KERNEL.member == (
        "debian/12/x86_64/6.1.0-40-amd64/_1_SMP_Debian_6.1.153-1_2025-09-20_.btf"
    )


def test_the_very_build_is_taken() -> None:
    members = [OLDER_BUILD.member, KERNEL.member, OTHER_BUILD.member]
    assert choose(members, KERNEL) == KERNEL.member


@pytest.mark.parametrize("changed", [{"os_version": "11"}, {"os_id": "ubuntu"}])
def test_a_build_is_known_by_itself_whatever_runs_on_it(changed: dict[str, str]) -> None:
    there = replace(KERNEL, **changed)
    assert choose([OTHER_BUILD.member, there.member], KERNEL) == there.member


def test_another_build_of_the_release_will_do_and_the_newest_is_taken() -> None:
    assert choose([OTHER_BUILD.member, OLDER_BUILD.member], KERNEL) == OTHER_BUILD.member


@pytest.mark.parametrize(
    "changed",
    [
        {"release": "6.1.0-41-amd64"},
        {"release": "6.1.0-40-cloud-amd64"},
        {"arch": "aarch64"},
        {"os_id": "ubuntu", "build": "#1 SMP Ubuntu"},
    ],
)
def test_another_kernel_is_never_taken(changed: dict[str, str]) -> None:
    assert choose([replace(KERNEL, **changed).member], KERNEL) is None


@pytest.mark.parametrize("name", ["", "x", "a/b", "debian/12/x86_64/6.1.0-40-amd64", "/" * 9])
def test_strange_members_are_passed_over(name: str) -> None:
    assert choose([name], KERNEL) is None


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            made.addfile(about, io.BytesIO(content))
    return path


def test_the_content_comes_with_its_name(tmp_path: Path) -> None:
    path = packed(tmp_path / "btf.tar.gz", {KERNEL.member: b"types", "x": b"y"})
    assert find(KERNEL, str(path)) == (KERNEL.member, b"types")


def test_no_archive_and_no_member_are_no_errors(tmp_path: Path) -> None:
    assert find(KERNEL, str(tmp_path / "none")) is None
    assert find(KERNEL, str(packed(tmp_path / "btf.tar.gz", {}))) is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00"])
def test_a_damaged_archive_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "btf.tar.gz"
    path.write_bytes(content)
    with pytest.raises(BtfNotFound, match=f"^{path} is damaged .*: build it again$") as caught:
        find(KERNEL, str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_an_archive_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    path = packed(tmp_path / "btf.tar.gz", {KERNEL.member: bytes(range(256)) * 99})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BtfNotFound, match="is damaged"):
        find(KERNEL, str(path))


def test_a_file_for_libbpf_is_gone_afterwards() -> None:
    with archive.as_file(b"types") as path:
        assert Path(path).read_bytes() == b"types"
    assert not Path(path).exists()
