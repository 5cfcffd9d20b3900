# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives are unpacked whole below one folder or refused, with nothing left of them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    Layout,
    ReleaseError,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Member = tuple[str, bytes | None, dict[str, object]]
GOOD: list[Member] = [
    ("btfleet-1/bin/btfleet", b"#!/usr/bin/python3\n", {"mode": 0o755}),
    ("btfleet-1/lib/btfleet/__init__.py", b"", {"mode": 0o644}),
    ("btfleet-1/lib/btfleet/cli.py", b"def main():\n    return 0\n" * 50, {"mode": 0o600}),
    ("btfleet-1/units/btfleet-conntracker.service", b"[Unit]\n", {"mode": 0o644}),
]


def archive(members: Iterable[Member], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as packed:  # type: ignore[call-overload]
        for name, content, attributes in members:
            member = tarfile.TarInfo(name)
            for attribute, value in attributes.items():
                setattr(member, attribute, value)
            member.size = len(content or b"")
            packed.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), str(tmp_path / "units"))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refusal(layout: Layout, content: bytes, tmp_path: Path) -> str:
    with pytest.raises(ReleaseError) as caught:
        release.unpack(layout, content, "1-abc")
    assert everything(tmp_path) == ["opt", "opt/releases"]
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_release_is_unpacked(layout: Layout) -> None:
    release.unpack(layout, archive(GOOD), "1-abc")
    assert os.listdir(layout.releases) == ["1-abc"]
    folder = Path(layout.folder("1-abc"))
    for name, content, _attributes in GOOD:
        assert (folder / name.split("/", 1)[1]).read_bytes() == content
    assert folder.stat().st_mode & 0o777 == 0o755


def test_modes_are_those_of_programs_and_files_and_no_others(layout: Layout) -> None:
    """Never a set-user-id bit or a file that anybody may write."""
    members: list[Member] = [
        (name, content, {"mode": 0o7777}) for name, content, _attributes in GOOD[:1]
    ]
    members += [(name, content, {"mode": 0o666}) for name, content, _attributes in GOOD[1:]]
    release.unpack(layout, archive(members), "1-abc")
    folder = Path(layout.folder("1-abc"))
    modes = {path.stat().st_mode & 0o7777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o755, 0o644}
    assert (folder / "bin" / "btfleet").stat().st_mode & 0o7777 == 0o755


def test_bytecode_is_made_at_once_and_trusted_by_content(layout: Layout) -> None:
    release.unpack(layout, archive(GOOD), "1-abc")
    (compiled,) = Path(layout.folder("1-abc"), "lib", "btfleet", "__pycache__").glob("cli.*.pyc")
    raw = compiled.read_bytes()
    assert int.from_bytes(raw[4:8], "little") == 1  # PEP 552: hash-based, unchecked
    assert layout.folder("1-abc").encode() in raw


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "btfleet-1/../../evil", "/tmp/btfleet-evil", "btfleet-1/lib/.."),  # noqa: S108
        *("..", "btfleet-1/../../../../etc/cron.d/evil"),
    ],
)
def test_a_way_out_of_the_folder_is_refused(layout: Layout, tmp_path: Path, name: str) -> None:
    message = refusal(layout, archive([*GOOD, (name, b"evil", {})]), tmp_path)
    assert message.startswith(
        f"the archive holds {name!r}, which is no plain file below one folder"
    )
    assert not os.path.exists("/tmp/btfleet-evil")  # noqa: S108


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "btfleet"},
        {"type": tarfile.LNKTYPE, "linkname": "btfleet-1/bin/btfleet"},
        {"type": tarfile.LNKTYPE, "linkname": "/etc/shadow"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
    ],
    ids=["symlink", "symlink-inside", "hardlink", "hardlink-out", "char", "block", "fifo", "dir"],
)
def test_anything_but_a_plain_file_is_refused(
    layout: Layout, tmp_path: Path, attributes: dict[str, object]
) -> None:
    message = refusal(layout, archive([*GOOD, ("btfleet-1/odd", None, attributes)]), tmp_path)
    assert "'btfleet-1/odd', which is no plain file" in message


@pytest.mark.parametrize(
    "members",
    [
        [],
        [*GOOD, ("second/bin/btfleet", b"", {})],
        [*GOOD, ("beside", b"", {})],
        GOOD[1:],
        GOOD[:-1],
        [("bin/btfleet", b"", {})],
        [("btfleet-1", b"", {})],
    ],
    ids=["empty", "two-tops", "file-beside", "no-command", "no-unit", "no-top", "one-file"],
)
def test_an_archive_that_is_no_release_is_refused(
    layout: Layout, tmp_path: Path, members: list[Member]
) -> None:
    assert "the archive is no release" in refusal(layout, archive(members), tmp_path)


@pytest.mark.parametrize("first", ["btfleet-1/bin", "btfleet-1/bin/btfleet/x"])
def test_a_file_in_the_place_of_a_folder_is_refused(
    layout: Layout, tmp_path: Path, first: str
) -> None:
    refusal(layout, archive([*GOOD, (first, b"", {})]), tmp_path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8b", archive(GOOD, "w")])
def test_what_is_no_compressed_archive_is_refused(
    layout: Layout, tmp_path: Path, content: bytes
) -> None:
    message = refusal(layout, content, tmp_path)
    assert message.startswith(("the release archive is damaged (", "the archive is no release"))


def test_a_truncated_archive_of_any_length_is_refused(layout: Layout, tmp_path: Path) -> None:
    """All but the end marks of gzip and tar: tarfile needs neither."""
    whole = archive(GOOD)
    for length in range(0, len(whole) - 60, 7):
        refusal(layout, whole[:length], tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_refused_or_harmless(
    layout: Layout, tmp_path: Path, data: st.DataObject
) -> None:
    compressed = data.draw(st.booleans())
    content = bytearray(archive(GOOD, "w:gz" if compressed else "w"))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    if not compressed:
        import gzip  # noqa: PLC0415

        content = bytearray(gzip.compress(bytes(content)))
    try:
        release.unpack(layout, bytes(content), "1-abc")
    except ReleaseError:
        assert os.listdir(layout.releases) == []
    else:
        assert os.listdir(layout.releases) == ["1-abc"]
        subprocess.run(["rm", "-r", layout.folder("1-abc")], check=True)
    assert everything(tmp_path) == ["opt", "opt/releases"]


def test_the_built_release_is_accepted(layout: Layout, checkout: Path) -> None:
    """What `make release` packs."""
    built = list((checkout / "roles" / "conntracker" / "files").glob("btfleet-*.tar.gz"))
    if not built:
        pytest.skip("`make release` was not run")
    release.unpack(layout, built[0].read_bytes(), "1-abc")
    done = subprocess.run(
        ["python3", "-I", os.path.join(layout.folder("1-abc"), "bin", "btfleet"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("btfleet ")
    assert os.path.exists(release.packed_unit(layout, "1-abc"))


def test_what_a_killed_unpacking_left_is_cleared_away(tmp_path: Path) -> None:
    layout = release.Layout(root=str(tmp_path))
    left = tmp_path / "releases" / ".unpack-abc"
    left.mkdir(parents=True)
    with pytest.raises(ReleaseError):
        release.unpack(layout, b"", "1.0-0")
    assert not left.exists()


def test_a_foreign_file_in_the_place_of_a_link_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "btfleet"
    foreign.write_text("somebody's")
    with pytest.raises(ReleaseError, match="is there and no link of ours: move it away"):
        release.link_atomically("target", str(foreign))
    assert foreign.read_text() == "somebody's"
