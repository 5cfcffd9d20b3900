# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into an archive, what stays out, and that it comes out again as it was."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import pytest
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import release_archive
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def wheel(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


names = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True)


@settings(max_examples=25)
@given(st.dictionaries(names, st.binary(max_size=50), min_size=1))
def test_what_is_packed_comes_out_again(content: dict[str, bytes]) -> None:
    packed = release_archive.pack("top", content)
    assert release_archive.unpack(packed) == ("top", content)
    assert release_archive.pack("top", dict(reversed(content.items()))) == packed


@pytest.mark.parametrize("raw", [b"", b"nonsense", gzip.compress(b"no tar")])
def test_a_damaged_archive_is_refused(raw: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        release_archive.unpack(raw)
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_archive_is_refused() -> None:
    packed = release_archive.pack("top", {"a": bytes(range(256)) * 50})
    with pytest.raises(ArchiveError, match="is damaged"):
        release_archive.unpack(packed[: len(packed) // 2])


def test_an_archive_with_anything_but_files_below_one_folder_is_refused() -> None:
    def archive(*members: tarfile.TarInfo) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as packed:
            for member in members:
                packed.addfile(member)
        return stream.getvalue()

    folder = tarfile.TarInfo("top/folder")
    folder.type = tarfile.DIRTYPE
    for raw in (
        archive(folder),
        archive(tarfile.TarInfo("file")),
        archive(tarfile.TarInfo("one/file"), tarfile.TarInfo("two/file")),
        archive(),
    ):
        with pytest.raises(ArchiveError):
            release_archive.unpack(raw)


def test_wheels_share_a_folder_but_no_file() -> None:
    content: dict[str, bytes] = {}
    release_archive.add_wheel(content, "one", wheel({"google/a.py": b"1", "same.py": b"same"}))
    release_archive.add_wheel(content, "two", wheel({"google/b.py": b"2", "same.py": b"same"}))
    assert set(content) == {"lib/google/a.py", "lib/google/b.py", "lib/same.py"}
    with pytest.raises(ArchiveError, match=r"^three brings another google/a\.py"):
        release_archive.add_wheel(content, "three", wheel({"google/a.py": b"3"}))


@pytest.mark.parametrize("raw", [b"", b"no zip", wheel({"a": b"1"})[:40]])
def test_what_is_no_wheel_is_refused(raw: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"^it is no wheel"):
        release_archive.wheel_content("it", raw)


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        *(("lib/grpc/__init__.py", True), ("lib/grpc/_cython/cygrpc.so", True)),
        *(("lib/grpc/_cython/_credentials/roots.pem", True), ("lib/grpc/cygrpc.pyi", False)),
        ("lib/securesystemslib/_vendor/ed25519/test_data/ed25519", False),
        *(("lib/x/tests/test_x.py", False), ("lib/x/test/y.py", False), ("lib/tests/y.py", False)),
        *(("lib/x/testing.py", True), ("lib/x/contest/y.py", True), ("lib/x/test.py", True)),
        *(("lib/cffi/parse_c_type.h", False), ("lib/x/py.typed", False)),
        *(("lib/x-1.dist-info/RECORD", False), ("lib/x-1.dist-info/METADATA", True)),
        *(("lib/x-1.dist-info/licenses/LICENSE", True), ("lib/x/RECORD", True)),
        *(("units/tests/x.h", True), ("requirements.txt", True)),
    ],
)
def test_dead_weight(name: str, stays: bool) -> None:
    assert (name in release_archive.without_dead_weight({name: b""})) is stays


@pytest.mark.parametrize(
    "interpreter", ["python3", "", "/usr/bin/env python3", "/x\n/y", "/" * 200]
)
def test_an_interpreter_that_no_first_line_can_name_is_refused(interpreter: str) -> None:
    with pytest.raises(ArchiveError, match="needed: an absolute path"):
        release_archive.launcher(interpreter)


def test_the_launcher_is_isolated_from_the_host() -> None:
    assert release_archive.launcher("/usr/bin/python3").startswith(b"#!/usr/bin/python3 -IS\n")
