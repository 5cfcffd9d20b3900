# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that a process holds: none is let go too early, and none is kept too long.

Pipes stand for the links: the reading end is at its end as soon as nobody holds the writing one.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.backends import held_links, holder
from btfleet._kernel.errors import LoaderError


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "run" / "holder.sock")
    holder.keep(None, str(tmp_path / "run" / "holder.sock"))


class Link:
    """A link that is handed over."""

    def __init__(self) -> None:
        self.end, self.fd = os.pipe()

    def hand_over(self, token: str, path: str) -> None:
        holder.hold(token, {"link_insert": self.fd}, path)
        os.close(self.fd)

    def is_held(self, patience: float = 0.0) -> bool:
        return not select.select([self.end], [], [], patience)[0]


def serving(path: str) -> holder.Holder:
    here = holder.Holder(path)
    here.start()
    return here


def test_what_is_handed_over_stays_when_the_loader_lets_go(path: str) -> None:
    serving(path)
    link = Link()
    link.hand_over("a", path)
    assert link.is_held()
    found = held_links.look(path)
    assert found
    assert found.pid == os.getpid()
    assert list(found.sets) == ["a"]
    assert list(found.sets["a"]) == ["link_insert"]


def test_both_sets_are_held_until_it_is_said_which_to_keep(path: str) -> None:
    serving(path)
    old, new = Link(), Link()
    old.hand_over("old", path)
    new.hand_over("new", path)
    assert old.is_held()
    assert new.is_held()
    holder.keep("new", path)
    assert not old.is_held(5)
    assert new.is_held()


def test_a_holder_that_is_left_with_nothing_ends(path: str) -> None:
    here = serving(path)
    link = Link()
    link.hand_over("a", path)
    holder.keep(None, path)
    here.wait()
    assert not link.is_held(5)
    assert held_links.look(path) is None
    assert not os.path.exists(path)


def test_another_process_takes_over_without_a_gap(path: str) -> None:
    holder.start(path)
    link = Link()
    link.hand_over("a", path)
    before = held_links.look(path)
    assert before
    assert before.pid != os.getpid()
    successor = holder.take_over(path)
    successor.start()
    after = held_links.look(path)
    assert after
    assert after.pid == os.getpid()
    assert list(after.sets["a"]) == ["link_insert"]
    assert link.is_held()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{before.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert link.is_held()
    holder.keep(None, path)
    assert not link.is_held(5)


def test_a_started_process_has_nothing_of_ours_open(path: str) -> None:
    link = Link()
    holder.start(path)
    os.close(link.fd)
    assert not link.is_held(5)


def test_nobody_to_take_over_from_is_no_error(path: str) -> None:
    successor = holder.take_over(path)
    assert successor.is_empty
    successor.close()


def test_links_that_nobody_takes_are_an_error_of_one_line(path: str) -> None:
    with pytest.raises(LoaderError, match=r"^no process holds the links: none answers") as caught:
        holder.hold("a", {}, path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_killed_holder_is_none_and_its_socket_is_forgotten(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(path)
    assert held_links.look(path) is None
    serving(path)
    assert held_links.look(path) is not None
    holder.keep(None, path)
    holder.forget(path)
    assert not os.path.exists(path)


@pytest.mark.parametrize("request_", [b"", b"{", b"[]", b"5", b'{"do": "sing"}', b"\xff"])
def test_nonsense_changes_nothing(path: str, request_: bytes) -> None:
    serving(path)
    link = Link()
    link.hand_over("a", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        sock.send(request_)
    assert held_links.look(path) is not None
    assert link.is_held()


def test_a_socket_that_cannot_be_made_is_not_left_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="AF_UNIX path too long"):
        holder.Holder(str(tmp_path / ("x" * 120)))
    assert os.listdir("/proc/self/fd") == before


def test_only_root_may_connect(path: str) -> None:
    serving(path)
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o077 == 0
