# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees are built from hashed wheels alone, once, and taken from where they are already.

pip is the real one; the wheels are made here, and found through its own arguments.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    HostPython,
    tree_name,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import (
    agent_tree,
    release_archive,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.agent_tree import Sources
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)

PYTHON = HostPython("cp311", "x86_64")
NAME = tree_name("1.0-0123456789ab", PYTHON)
CLI = b"def main():\n    import needed\n    print(needed.WHAT)\n    return 0\n"


def make_wheel(folder: Path, name: str, tag: str, files: dict[str, bytes]) -> str:
    """A wheel with what pip wants to see of one; its SHA-256."""
    stream = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / f"{name}-1.0-{tag}.whl").write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    return folder


@pytest.fixture
def digest(wheelhouse: Path) -> str:
    """That of a wheel for this Python; there is one for another, too."""
    make_wheel(wheelhouse, "needed", "cp313-cp313-manylinux_2_17_x86_64", {"needed.py": b"WHAT=13"})
    return make_wheel(
        wheelhouse,
        "needed",
        "cp311-cp311-manylinux_2_28_x86_64",
        {"needed.py": b"WHAT = 'it runs'", "needed.pyi": b"WHAT: str"},
    )


@pytest.fixture
def sources(tmp_path: Path, wheelhouse: Path) -> Sources:
    return Sources(
        str(tmp_path / "cache" / "trees"),
        None,
        ("--no-index", f"--find-links={wheelhouse}"),
    )


def loader(folder: Path, requirements: str) -> str:
    """A release archive without dependencies."""
    content = {
        "bin/btfleet": release_archive.launcher("/usr/bin/python3"),
        "lib/btfleet/__init__.py": b"",
        "lib/btfleet/cli.py": CLI,
        "units/btfleet-conntracker.service": b"[Unit]\n",
        "requirements.txt": requirements.encode(),
    }
    path = folder / "btfleet-1.0.tar.gz"
    path.write_bytes(release_archive.pack("btfleet-1.0", content))
    return str(path)


@pytest.fixture
def release(tmp_path: Path, digest: str) -> str:
    return loader(tmp_path, f"needed==1.0 --hash=sha256:{digest}\n")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)


def test_a_tree_has_release_and_wheels_is_built_once_and_always_the_same(
    release: str, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = agent_tree.obtain(NAME, release, PYTHON, sources)
    with monkeypatch.context() as patch:
        patch.setattr(agent_tree, "build", lambda *_arguments: pytest.fail("built again"))
        assert agent_tree.obtain(NAME, release, PYTHON, sources) == path
    built = Path(path).read_bytes()
    assert agent_tree.build(Path(release).read_bytes(), PYTHON, sources.pip_arguments) == built
    assert path == f"{sources.cache}/btfleet-{NAME}.tar.gz"
    top, content = release_archive.unpack(Path(path).read_bytes())
    assert top == "btfleet-1.0"
    assert content["lib/needed.py"] == b"WHAT = 'it runs'"
    assert "lib/needed.pyi" not in content
    subprocess.run(["tar", "-xzf", path, "-C", str(tmp_path)], check=True)
    done = subprocess.run(
        [sys.executable, "-IS", str(tmp_path / top / "bin" / "btfleet")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "it runs\n"


def _obtain(release: str, sources: Sources, built: str) -> None:
    """What a fork of Ansible does; each build leaves a line."""
    real = agent_tree.build

    def build(loader: bytes, python: HostPython, pip_arguments: tuple[str, ...]) -> bytes:
        with open(built, "a", encoding="ascii") as stream:
            stream.write("built\n")
        return real(loader, python, pip_arguments)

    agent_tree.build = build
    agent_tree.obtain(NAME, release, PYTHON, sources)


def test_of_many_that_ask_at_a_time_one_builds(
    release: str, sources: Sources, tmp_path: Path
) -> None:
    built = tmp_path / "built"
    forks = multiprocessing.get_context("fork")
    asking = [
        forks.Process(target=_obtain, args=(release, sources, str(built))) for _number in range(4)
    ]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
        assert process.exitcode == 0
    assert built.read_text() == "built\n"


def test_a_tree_from_elsewhere_is_taken_as_it_is(
    release: str, sources: Sources, tmp_path: Path
) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    (archives / f"btfleet-{NAME}.tar.gz").write_bytes(b"theirs")
    nowhere = sources._replace(archives=str(archives), pip_arguments=("--no-index",))
    path = agent_tree.obtain(NAME, release, PYTHON, nowhere)
    assert Path(path).read_bytes() == b"theirs"
    assert not Path(sources.cache).exists()


def test_a_folder_of_archives_without_the_right_one_is_named(
    sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "old.tar.gz").write_bytes(release_archive.pack("btfleet-1", {"bin/btfleet": b""}))
    nowhere = sources._replace(archives=str(tmp_path))
    with pytest.raises(ArchiveError) as caught:
        agent_tree.obtain(NAME, str(tmp_path / "old.tar.gz"), PYTHON, nowhere)
    assert str(caught.value).startswith(f"{tmp_path} has no btfleet-{NAME}.tar.gz, and the release")
    assert len(str(caught.value).splitlines()) == 1


def test_a_wheel_with_another_hash_is_refused(
    tmp_path: Path, sources: Sources, digest: str
) -> None:
    release = loader(tmp_path, f"needed==1.0 --hash=sha256:{digest[::-1]}\n")
    with pytest.raises(ArchiveError, match="pip cannot get the agent's packages for cp311 on x86_"):
        agent_tree.obtain(NAME, release, PYTHON, sources)
    assert not list(Path(sources.cache).glob("*.gz"))


def test_a_list_without_hashes_is_refused(tmp_path: Path, sources: Sources, digest: str) -> None:
    release = loader(tmp_path, "needed==1.0\n")
    assert digest
    with pytest.raises(ArchiveError, match="hash"):
        agent_tree.obtain(NAME, release, PYTHON, sources)


def test_a_python_without_a_wheel_is_named(release: str, sources: Sources) -> None:
    other = HostPython("cp312", "aarch64")
    with pytest.raises(ArchiveError, match="for cp312 on aarch64"):
        agent_tree.obtain(tree_name("1.0-0123456789ab", other), release, other, sources)


def test_sources_alone_are_never_built(tmp_path: Path, sources: Sources, wheelhouse: Path) -> None:
    """Building runs what is in them."""
    (wheelhouse / "needed-1.0.tar.gz").write_bytes(b"a source archive")
    digest = hashlib.sha256(b"a source archive").hexdigest()
    release = loader(tmp_path, f"needed==1.0 --hash=sha256:{digest}\n")
    with pytest.raises(ArchiveError, match=r"No matching distribution|Could not find"):
        agent_tree.obtain(NAME, release, PYTHON, sources)


def test_a_release_from_before_has_no_list(tmp_path: Path, sources: Sources) -> None:
    raw = release_archive.pack("btfleet-1", {"bin/btfleet": b""})
    (tmp_path / "old.tar.gz").write_bytes(raw)
    with pytest.raises(ArchiveError, match=r"has no requirements\.txt"):
        agent_tree.obtain(NAME, str(tmp_path / "old.tar.gz"), PYTHON, sources)


def test_a_full_disk_is_named(release: str, sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ArchiveError, match=r"cannot keep the agent's tree in .*Not a directory"):
        agent_tree.obtain(NAME, release, PYTHON, sources._replace(cache=f"{tmp_path}/file/x"))


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert agent_tree.cache_folder() == "/x/btfleet/trees"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert agent_tree.cache_folder() == "/home/me/.cache/btfleet/trees"
