# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)

from tools.build_release import build

CLI = "def main():\n    print('it runs')\n    return 3\n"


def make_wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture
def units(tmp_path: Path) -> Path:
    folder = tmp_path / "units"
    folder.mkdir()
    (folder / "btfleet-conntracker.service").write_text("[Unit]\n")
    return folder


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "agent.txt"
    path.write_text("tuf==7.0.1 --hash=sha256:00\n")
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path, "btfleet-1.2.3", {"btfleet/__init__.py": "", "btfleet/cli.py": CLI})


def test_holds_launcher_library_units_and_requirements(
    tmp_path: Path, wheel: Path, units: Path, requirements: Path
) -> None:
    archive = build(wheel, units, requirements, tmp_path)
    assert archive.name == "btfleet-1.2.3.tar.gz"
    with tarfile.open(archive) as content:
        members = {member.name: member for member in content.getmembers()}
    assert list(members) == [
        "btfleet-1.2.3/bin/btfleet",
        "btfleet-1.2.3/lib/btfleet/__init__.py",
        "btfleet-1.2.3/lib/btfleet/cli.py",
        "btfleet-1.2.3/requirements.txt",
        "btfleet-1.2.3/units/btfleet-conntracker.service",
    ]
    modes = {name.split("/")[1]: member.mode for name, member in members.items()}
    assert modes == {"bin": 0o755, "lib": 0o644, "requirements.txt": 0o644, "units": 0o644}
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_the_launcher_finds_its_library_through_a_link(
    tmp_path: Path, wheel: Path, units: Path, requirements: Path
) -> None:
    archive = build(wheel, units, requirements, tmp_path)
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(tmp_path)], check=True)
    link = tmp_path / "btfleet"
    link.symlink_to(tmp_path / "btfleet-1.2.3" / "bin" / "btfleet")
    done = subprocess.run(
        [sys.executable, "-I", str(link)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("it runs\n", "", 3)


def test_a_wheel_with_files_elsewhere_is_refused(
    tmp_path: Path, units: Path, requirements: Path
) -> None:
    odd = make_wheel(tmp_path, "odd-1", {"odd-1.data/scripts/odd": ""})
    with pytest.raises(ArchiveError, match="outside of its packages"):
        build(odd, units, requirements, tmp_path)


def test_an_archive_without_units_is_refused(
    tmp_path: Path, wheel: Path, requirements: Path
) -> None:
    with pytest.raises(ArchiveError, match="no systemd unit"):
        build(wheel, tmp_path / "missing", requirements, tmp_path)


def test_what_is_no_wheel_is_refused(tmp_path: Path, units: Path, requirements: Path) -> None:
    with pytest.raises(ArchiveError, match="is not a wheel"):
        build(requirements, units, requirements, tmp_path)


def test_two_builds_of_the_checkout_give_the_same_bytes(tmp_path: Path, checkout: Path) -> None:
    digests = set()
    for attempt in ("one", "two"):
        folder = tmp_path / attempt
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
            cwd=checkout / "agent",
            check=True,
            capture_output=True,
        )
        archive = build(
            next(folder.glob("*.whl")),
            checkout / "agent" / "units",
            checkout / "requirements" / "agent.txt",
            folder,
        )
        digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
        if attempt == "one":
            time.sleep(2)  # a zip's times are two seconds apart at the least
    assert len(digests) == 1

    with tarfile.open(archive) as content:
        top = content.getnames()[0].split("/")[0]
        for name in ("kernel", "products"):
            library = checkout / "plugins" / "module_utils" / name
            prefix = f"{top}/lib/btfleet/{name}/"
            packed = {path[len(prefix) :] for path in content.getnames() if path.startswith(prefix)}
            assert packed == {str(path.relative_to(library)) for path in library.rglob("*.py")}
