# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts can run the agent, and that both ends find the same name for its tree."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import host_python, release
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    HostPython,
    tree_name,
)

GOOD: list[Any] = ["cpython", [3, 11], "x86_64", ["glibc", "2.36"]]


def run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_this_python_is_read() -> None:
    found = host_python.read(run, sys.executable)
    assert found.tag == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert found.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert found.arch == platform.machine()
    assert found.interpreter == sys.executable


def test_an_answer_is_judged() -> None:
    assert host_python.judge(GOOD, "/x") == HostPython("cp311", "x86_64", "/x")
    assert host_python.judge(["cpython", [3, 10], "aarch64", ["glibc", "2.28"]], "/x").version == (
        "3.10"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: [3, 9]}, "/x is cpython 3.9, needed: cpython 3.10 or newer"),
        ({1: [2, 7]}, "/x is cpython 2.7"),
        ({0: "pypy"}, "/x is pypy 3.11"),
        ({2: "riscv64"}, "the host is riscv64, the agent's packages are for aarch64 and x86_64"),
        ({3: ["glibc", "2.17"]}, "/x runs on glibc 2.17, needed: glibc 2.28 or newer"),
        ({3: ["", ""]}, "/x runs on another libc, needed: glibc"),
    ],
)
def test_a_host_that_cannot_run_the_agent_is_told_why(change: dict[int, Any], message: str) -> None:
    answer = [change.get(place, value) for place, value in enumerate(GOOD)]
    with pytest.raises(HostError) as caught:
        host_python.judge(answer, "/x")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_interpreter_is_named() -> None:
    with pytest.raises(HostError, match=r"^/no/python is not there: install Python 3\.10"):
        host_python.read(run, "/no/python")


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no\nlibpython' >&2\nexit 127\n")
    os.chmod(broken, 0o755)  # noqa: S103
    with pytest.raises(HostError, match=r"does not run \(no libpython\)"):
        host_python.read(run, str(broken))


def test_a_tree_is_named_after_what_it_is_made_from() -> None:
    loader = release.release_name("0.1.0", "0123456789ab" * 6)
    names = {
        tree_name(loader, HostPython("cp311", "x86_64")),
        tree_name(loader, HostPython("cp313", "x86_64")),
        tree_name(loader, HostPython("cp311", "aarch64")),
        tree_name(loader, HostPython("cp311", "x86_64", "/usr/bin/python3.11")),
        tree_name("0.1.0-ba9876543210", HostPython("cp311", "x86_64")),
    }
    assert len(names) == 5
    assert f"{loader}-cp311-x86_64-1" in names
    assert all(release.has_dependencies(name) for name in names)
    assert not release.has_dependencies(loader)
    assert not release.has_dependencies(None)
