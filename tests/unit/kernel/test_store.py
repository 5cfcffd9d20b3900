# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are written whole or not at all, and only ours are ever removed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from btfleet._kernel.errors import AssetReadError, InvalidSpec
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store, read_object_file, write_atomically

SPEC = Spec("a" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "etc" / "spec.json"), str(tmp_path / "var"))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_with_its_mode_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(str(path), b"content", 0o600)
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert everything(tmp_path) == ["a", "a/b", "a/b/file"]


@pytest.mark.parametrize("call", ["fsync", "fchmod", "rename"])
def test_a_write_that_fails_leaves_the_old_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file"]


def test_a_spec_is_read_as_it_was_written(store: Store) -> None:
    assert store.read_spec() is None
    store.write_spec(SPEC)
    assert store.read_spec() == SPEC


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1]", b'{"object_sha256": "\xff"}'])
def test_a_damaged_spec_file_is_named(store: Store, content: bytes) -> None:
    write_atomically(store.spec_path, content)
    with pytest.raises(InvalidSpec) as caught:
        store.read_spec()
    assert len(str(caught.value).splitlines()) == 1


def test_an_object_is_kept_under_its_digest(store: Store) -> None:
    digest = store.write_object(b"object")
    assert digest == hashlib.sha256(b"object").hexdigest()
    assert store.read_object(digest) == b"object"
    assert store.has_object(digest)
    assert store.objects() == [digest]


def test_a_damaged_object_is_not_there_and_is_written_again(store: Store) -> None:
    digest = store.write_object(b"object")
    Path(store.object_path(digest)).write_bytes(b"objecT")
    assert not store.has_object(digest)
    with pytest.raises(AssetReadError, match=f"has sha256 [0-9a-f]{{64}}, needed: {digest}"):
        store.read_object(digest)
    store.write_object(b"object")
    assert store.read_object(digest) == b"object"


def test_a_missing_object_is_named(store: Store) -> None:
    with pytest.raises(AssetReadError, match=r"cannot read the object .* \(No such file"):
        store.read_object("b" * 64)
    with pytest.raises(AssetReadError, match=r"\(Is a directory\)"):
        read_object_file("/")


def test_pruning_keeps_what_is_named_and_what_is_not_ours(store: Store) -> None:
    kept, dropped = store.write_object(b"one"), store.write_object(b"two")
    foreign = Path(store.objects_folder) / "mine.bpf.o"
    foreign.write_bytes(b"somebody's")
    store.prune({kept})
    assert store.objects() == [kept]
    assert not store.has_object(dropped)
    assert foreign.exists()


def test_pruning_nothing(store: Store) -> None:
    store.prune(set())
    assert store.objects() == []


def test_removal_leaves_nothing(store: Store, tmp_path: Path) -> None:
    assert not store.exists()
    store.write_object(b"object")
    store.write_spec(SPEC)
    # Each file that has a name there, of today and of days to come, but for those of others
    names = [name for name, made in vars(Store).items() if isinstance(made, property)]
    files = [getattr(store, name) for name in names if name.endswith("_path")]
    assert len(files) >= 6
    for path in files:
        write_atomically(path, b"{}")
    assert store.exists()
    store.remove()
    assert everything(tmp_path) == []
    assert not store.exists()
    store.remove()


def test_removal_takes_what_a_killed_writer_left(store: Store, tmp_path: Path) -> None:
    store.write_spec(SPEC)
    store.write_object(b"object")
    for folder in (store.objects_folder, store.state_folder, os.path.dirname(store.spec_path)):
        (Path(folder) / ".btfleet-abc123").write_bytes(b"half")
    store.remove()
    assert everything(tmp_path) == []


def test_removal_leaves_foreign_files_and_is_then_done(store: Store, tmp_path: Path) -> None:
    store.write_spec(SPEC)
    store.write_object(b"object")
    for name in ("etc/notes", "var/notes", "var/objects/mine.bpf.o"):
        (tmp_path / name).write_text("somebody's")
    store.remove()
    assert everything(tmp_path) == [
        *("etc", "etc/notes", "var", "var/notes", "var/objects", "var/objects/mine.bpf.o")
    ]
    assert not store.exists()


def test_an_empty_folder_of_ours_still_has_to_go(store: Store, tmp_path: Path) -> None:
    os.makedirs(store.objects_folder)
    assert store.exists()
    store.remove()
    assert everything(tmp_path) == []
