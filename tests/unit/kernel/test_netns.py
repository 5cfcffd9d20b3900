# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces are found by process and by mount, and work inside one leaves the caller's alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.conntrack import netns

from tests.unit.kernel_access import namespace, needs_root


@pytest.fixture
def other() -> Iterator[str]:
    with namespace() as path:
        yield path


def test_the_own_namespace_is_among_all() -> None:
    number = int(os.readlink("/proc/self/ns/net").removeprefix("net:[").removesuffix("]"))
    assert netns.own() == number
    found = netns.find()
    assert number in found
    assert os.stat(found[number]).st_ino == number


@needs_root
def test_a_namespace_of_a_process_is_found(other: str) -> None:
    number = os.stat(other).st_ino
    assert number != netns.own()
    assert os.stat(netns.find()[number]).st_ino == number


@needs_root
@pytest.mark.skipif(shutil.which("ip") is None, reason="no iproute2")
def test_a_namespace_that_only_a_mount_holds_is_found_and_has_its_name() -> None:
    name = f"btfleet-unit-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        number = os.stat(f"/run/netns/{name}").st_ino
        assert netns.find()[number] == f"/run/netns/{name}"
        assert netns.names()[number] == name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert number not in netns.names()


def test_without_any_names_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "scandir", missing)
    assert netns.names() == {}


@needs_root
def test_work_is_done_inside_and_the_caller_stays_outside(other: str) -> None:
    before = netns.own()
    seen = netns.run_inside(other, lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    assert seen == os.stat(other).st_ino
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    assert netns.own() == before
    assert threading.active_count() == 1


@needs_root
def test_interfaces_inside_are_the_namespaces_own(other: str) -> None:
    inside = netns.run_inside(other, lambda: Path("/proc/thread-self/net/dev").read_text())
    assert [line.split(":")[0].strip() for line in inside.splitlines()[2:]] == ["lo"]


@needs_root
@pytest.mark.parametrize("kind", [ValueError, PermissionError, KeyboardInterrupt])
def test_an_error_inside_is_the_callers(other: str, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("inside")

    before = netns.own()
    with pytest.raises(kind, match="inside"):
        netns.run_inside(other, fail)
    assert netns.own() == before


def test_a_namespace_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        netns.run_inside(str(tmp_path / "gone"), lambda: None)


@needs_root
def test_a_file_that_is_no_namespace() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        netns.run_inside("/dev/null", lambda: None)
    with pytest.raises(OSError, match="Invalid argument"):
        netns.run_inside("/proc/self/ns/mnt", lambda: None)


@needs_root
def test_no_descriptor_stays_open(other: str) -> None:
    before = os.listdir("/proc/self/fd")
    netns.run_inside(other, lambda: None)
    assert os.listdir("/proc/self/fd") == before
