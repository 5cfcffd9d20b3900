# SPDX-License-Identifier: GPL-3.0-or-later
"""A host gets the release that fits it, and keeps dependencies that something runs on."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    host_python,
    release_choice,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    HostPython,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    Layout,
    ReleaseError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release_choice import (
    Choice,
    Offer,
)

from tests.unit.release.test_host_python import run
from tests.unit.release.test_unpack import GOOD, archive

OFFER = Offer("1.0", "ab" * 32)
LOADER = "1.0-abababababab"


@pytest.fixture
def here() -> HostPython:
    return host_python.read(run, sys.executable)


@pytest.mark.parametrize(
    ("current", "dependencies", "with_them"),
    [
        (None, None, False),
        (None, False, False),
        (None, True, True),
        ("0.9-000000000000", None, False),
        ("0.9-000000000000", True, True),
        ("0.9-000000000000-cp311-x86_64-1", None, True),
        ("0.9-000000000000-cp311-x86_64-1", False, False),
    ],
)
def test_the_choice(
    here: HostPython, current: str | None, dependencies: bool | None, with_them: bool
) -> None:
    choice = release_choice.choose(OFFER, current, dependencies, run, sys.executable)
    if with_them:
        assert choice == Choice(host_python.tree_name(LOADER, here), here)
        assert choice.request()["python"] == {"tag": here.tag, "arch": here.arch}
    else:
        assert choice == Choice(LOADER)
        assert choice.request()["python"] is None


def test_without_dependencies_any_python_will_do() -> None:
    assert release_choice.choose(OFFER, None, None, run, "/no/python") == Choice(LOADER)


def test_a_tree_is_compiled_by_the_python_that_runs_it(tmp_path: Path, here: HostPython) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(archive(GOOD))
    offer = Offer("1.0", "ab" * 32, str(sent), hashlib.sha256(sent.read_bytes()).hexdigest())
    layout = Layout(str(tmp_path / "opt"))
    commands: list[list[str]] = []

    def recording(command: list[str]) -> tuple[int, str, str]:
        commands.append(command)
        return run(command)

    release_choice.unpack(layout, recording, offer, Choice("name", here))
    assert commands[0][:4] == [sys.executable, "-IS", "-m", "compileall"]
    compiled = Path(layout.folder("name"), "lib", "btfleet", "__pycache__")
    (made,) = compiled.glob("cli.*.pyc")
    raw = made.read_bytes()
    assert int.from_bytes(raw[4:8], "little") == 1  # PEP 552: hash-based, unchecked
    assert layout.folder("name").encode() in raw


def test_what_arrived_damaged_is_refused(tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(b"something else")
    offer = Offer("1.0", "ab" * 32, str(sent), "cd" * 32)
    with pytest.raises(ReleaseError, match=r"^the archive arrived with sha256 "):
        release_choice.unpack(Layout(str(tmp_path / "opt")), run, offer, Choice(LOADER))
    assert not (tmp_path / "opt").exists()
