# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces are found whatever holds them, entered by any path, and are what was opened.

Work inside one leaves the caller's own namespace alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet._kernel.backends import seed
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import namespaces, netns
from btfleet._kernel.conntrack.namespaces import CannotEnter, Gone, Namespace
from btfleet._kernel.errors import LoaderError

from tests.unit.kernel_access import (
    MASQUERADED,
    bind,
    in_own_mounts,
    namespace,
    needs_bpf,
    needs_root,
    tracker_map,
)

CLONE_NEWNET = 0x40000000
_THREAD = """
import ctypes, os, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def body():
    assert libc.unshare(0x40000000) == 0
    print(os.stat("/proc/thread-self/ns/net").st_ino, flush=True)
    time.sleep(600)
threading.Thread(target=body).start()
"""
# exit(2) ends the calling thread alone
_LEADER_ENDS = _THREAD + "libc.syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)\n"
# A descriptor is all that holds it
_DESCRIPTOR = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
before = os.open("/proc/self/ns/net", os.O_RDONLY)
assert libc.unshare(0x40000000) == 0
held = os.open("/proc/self/ns/net", os.O_RDONLY)
assert libc.setns(before, 0) == 0
print(os.fstat(held).st_ino, flush=True)
time.sleep(600)
"""


@pytest.fixture
def other() -> Iterator[str]:
    with namespace() as path:
        yield path


@contextmanager
def holder(program: str) -> Iterator[int]:
    """The number of the namespace that a process holds in its way."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def entered(found: Namespace) -> int:
    """Where one really is after entering."""
    return found.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino)


# --- finding ------------------------------------------------------------------------------------


def test_the_own_namespace_is_among_all() -> None:
    assert entered(namespaces.find()[netns.own()]) == netns.own()


@needs_root
def test_a_namespace_of_a_process_is_found(other: str) -> None:
    number = os.stat(other).st_ino
    assert number != netns.own()
    assert entered(namespaces.find()[number]) == number


@needs_root
@pytest.mark.parametrize("program", [_THREAD, _LEADER_ENDS], ids=["a thread", "leader has ended"])
def test_a_namespace_that_a_thread_alone_lives_in_is_found(program: str) -> None:
    with holder(program) as number:
        assert entered(namespaces.find(descriptors=False)[number]) == number


@needs_root
def test_a_namespace_that_an_open_descriptor_alone_holds_is_found() -> None:
    with holder(_DESCRIPTOR) as number:
        assert number not in namespaces.find(descriptors=False)
        assert entered(namespaces.find()[number]) == number


@needs_root
def test_a_namespace_that_a_mount_of_other_processes_alone_holds_is_found(tmp_path: Path) -> None:
    """As a rootless container engine has them: in a mount namespace of its own."""
    (tmp_path / "a space").touch()
    script = (
        f"unshare --net mount --bind /proc/self/ns/net '{tmp_path}/a space' "
        f"&& stat -c %i '{tmp_path}/a space' && exec sleep 600"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            number = int(process.stdout.readline())
            assert entered(namespaces.find()[number]) == number
        finally:
            process.kill()


# --- what was opened ----------------------------------------------------------------------------


@needs_root
def test_a_file_that_a_later_mount_hides_does_not_keep_one_out(other: str, tmp_path: Path) -> None:
    """`mount --bind /run/netns /run/netns`: mountinfo names a file that cannot be reached."""
    number, file = os.stat(other).st_ino, tmp_path / "x"
    file.touch()

    def body() -> int:
        bind(other, str(file))
        bind(str(tmp_path), str(tmp_path))
        assert os.stat(file).st_ino != number
        found = namespaces.find()[number]
        assert str(file) in found.paths
        return entered(found)

    assert in_own_mounts(body) == number


@needs_root
def test_of_two_mounts_on_one_file_each_is_the_namespace_that_it_is(
    other: str, tmp_path: Path
) -> None:
    file = tmp_path / "x"
    file.touch()
    with namespace() as second:
        numbers = [os.stat(path).st_ino for path in (other, second)]

        def body() -> list[int]:
            for path in (other, second):
                bind(path, str(file))
            return [entered(namespaces.find()[number]) for number in numbers]

        assert in_own_mounts(body) == numbers


@needs_root
def test_a_file_that_leads_elsewhere_by_now_is_not_followed(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    with namespace() as later:

        def body() -> str:
            with namespace() as path:
                number = os.stat(path).st_ino
                bind(path, str(file))
                found = namespaces.find()[number]
                subprocess.run(["umount", str(file)], check=True)
                bind(later, str(file))
                assert entered(found) == number
            try:
                return str(entered(found))
            except Gone as exc:
                return str(exc.strerror).replace(str(number), "N")

        assert in_own_mounts(body) == "network namespace N is gone"


@needs_root
def test_one_that_nothing_leads_into_is_not_said_to_be_gone(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()

    def body() -> str:
        with namespace() as path:
            number = os.stat(path).st_ino
            bind(path, str(file))
        bind(str(tmp_path), str(tmp_path))
        try:
            return str(entered(namespaces.find()[number]))
        except CannotEnter as exc:
            return str(exc.strerror)

    assert in_own_mounts(body) == f"{file}: leads elsewhere (a later mount hides it)"


@needs_root
@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/mnt", "/proc/0/ns/net"])
def test_a_file_that_is_not_the_namespace_is_not_entered(path: str) -> None:
    with pytest.raises(Gone, match="network namespace 17 is gone"):
        Namespace(17, [path]).run(lambda: None)


@needs_root
def test_a_process_that_ends_meanwhile_takes_its_namespace_along() -> None:
    with namespace() as path:
        found = namespaces.find()[os.stat(path).st_ino]
    with pytest.raises(Gone):
        entered(found)


# --- the initial sync ---------------------------------------------------------------------------


@needs_bpf
def test_entries_of_a_namespace_that_was_not_visited_stay(tmp_path: Path) -> None:
    """Its file leads to another namespace, whose visit says nothing about it."""
    file = tmp_path / "x"
    file.touch()
    with namespace() as other, tracker_map() as fd:

        def body() -> tuple[int, bool]:
            with namespace() as path:
                number = os.stat(path).st_ino
                bind(path, str(file))
            bind(other, str(file))
            replace(MASQUERADED, netns=number, created_ns=0, generation=9).write(fd)
            refused = False
            try:
                seed.take_in(fd, seed.MapCalls(), seed.random_portid(), 0)
            except LoaderError as exc:
                refused = f"cannot enter network namespace {number} ({file}: leads " in str(exc)
            return bpf.map_fill(fd, bpf.map_info(fd)), refused

        assert in_own_mounts(body) == (2, True)


@needs_bpf
def test_a_namespace_with_a_hidden_file_is_read_all_the_same(other: str, tmp_path: Path) -> None:
    number, file = os.stat(other).st_ino, tmp_path / "x"
    file.touch()
    with tracker_map() as fd:
        replace(MASQUERADED, netns=number, created_ns=0, generation=9).write(fd)

        def body() -> int:
            bind(other, str(file))
            bind(str(tmp_path), str(tmp_path))
            seed.take_in(fd, seed.MapCalls(), seed.random_portid(), 0)
            return bpf.map_fill(fd, bpf.map_info(fd))

        # Visited, so the flow is known to have ended
        assert in_own_mounts(body) == 0


# --- work inside --------------------------------------------------------------------------------


@needs_root
def test_work_is_done_inside_and_the_caller_stays_outside(other: str) -> None:
    before = netns.own()
    found = Namespace(os.stat(other).st_ino, [other])
    assert entered(found) == found.inode
    assert netns.own() == before
    assert threading.active_count() == 1


@needs_root
def test_interfaces_inside_are_the_namespaces_own(other: str) -> None:
    found = Namespace(os.stat(other).st_ino, [other])
    inside = found.run(lambda: Path("/proc/thread-self/net/dev").read_text())
    assert [line.split(":")[0].strip() for line in inside.splitlines()[2:]] == ["lo"]


@needs_root
@pytest.mark.parametrize("kind", [ValueError, PermissionError, KeyboardInterrupt])
def test_an_error_inside_is_the_callers(other: str, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("inside")

    before = netns.own()
    with pytest.raises(kind, match="inside"):
        Namespace(os.stat(other).st_ino, [other]).run(fail)
    assert netns.own() == before


@needs_root
def test_no_descriptor_stays_open(other: str) -> None:
    found = Namespace(os.stat(other).st_ino, ["/dev/null", "/proc/self/ns/mnt", other])
    before = os.listdir("/proc/self/fd")
    entered(found)
    assert os.listdir("/proc/self/fd") == before
