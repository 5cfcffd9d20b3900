# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's group may read the pinned maps; links, and all for anybody else, are root's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.loader import access

from tests.unit.kernel_access import bpffs_at, hash_map, link_in, namespace, needs_bpf, needs_root

GID = 54321
MAP, LINK = "conntrack_live", "link_insert"


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[str]:
    """A map and a link, pinned as a load pins them."""
    with bpffs_at(tmp_path / "bpf") as mount, hash_map(4, 8, 8) as one, namespace() as netns:
        folder = mount / "btfleet"
        folder.mkdir(mode=0o700)
        bpf.obj_pin(one, str(folder / MAP))
        with link_in(netns) as (link, _program):
            bpf.obj_pin(link, str(folder / LINK))
        yield str(folder)


def modes(folder: str) -> dict[str, tuple[int, int, int]]:
    found = {}
    for name in ("", MAP, LINK):
        status = os.stat(os.path.join(folder, name))
        found[name] = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    return found


@needs_bpf
def test_a_load_is_roots_alone_until_there_is_a_group(pins: str) -> None:
    assert access.wrong(pins, 0) == []
    assert {one.path for one in access.wrong(pins, GID)} == {pins, f"{pins}/{MAP}"}


@needs_bpf
def test_the_group_reads_maps_and_no_links(pins: str) -> None:
    access.grant(pins, GID)
    assert modes(pins) == {"": (0, GID, 0o750), MAP: (0, GID, 0o640), LINK: (0, 0, 0o600)}
    assert access.wrong(pins, GID) == []
    access.grant(pins, GID)


@needs_bpf
def test_a_member_of_the_group_opens_a_map_for_reading_only(pins: str, tmp_path: Path) -> None:
    access.grant(pins, GID)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:  # pytest's folders are its user's alone
            folder.chmod(folder.stat().st_mode | 0o011)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answers = []
        os.setgroups([])
        os.setgid(GID)
        os.setuid(GID)
        for name, flags in ((MAP, bpf.RDONLY), (MAP, 0), (LINK, 0)):
            try:
                os.close(bpf.obj_get(os.path.join(pins, name), flags))
                answers.append("yes")
            except OSError as exc:
                answers.append(str(exc.strerror))
        os.write(writing, "|".join(answers).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as stream:
        assert stream.read() == "yes|Permission denied|Permission denied"


@needs_bpf
def test_without_the_group_it_is_roots_alone_again(pins: str) -> None:
    """Or the next group that gets the number would read it."""
    access.grant(pins, GID)
    access.grant(pins, 0)
    assert modes(pins) == {"": (0, 0, 0o700), MAP: (0, 0, 0o600), LINK: (0, 0, 0o600)}


@needs_bpf
def test_what_somebody_changed_is_wrong_and_put_right(pins: str) -> None:
    access.grant(pins, GID)
    os.chmod(f"{pins}/{MAP}", 0o666)  # noqa: S103
    os.chown(f"{pins}/{LINK}", 0, GID)
    found = access.wrong(pins, GID)
    assert [os.path.basename(one.path) for one in found] == [MAP, LINK]
    assert access.describe(found) == (f"group or mode of {MAP}, {LINK} is not as it should be",)
    access.grant(pins, GID)
    assert access.wrong(pins, GID) == []


@needs_root
def test_nothing_is_pinned(tmp_path: Path) -> None:
    assert access.wrong(str(tmp_path / "none"), GID) == []
    access.grant(str(tmp_path / "none"), GID)
    assert access.describe([]) == ()


@pytest.mark.parametrize(
    ("name", "mode", "gid", "wanted"),
    [
        ("conntrack_live", 0o600, GID, 0o640),
        ("conntrack_live", 0o666, GID, 0o640),
        ("iter_live", 0o400, GID, 0o440),
        ("link_insert", 0o600, GID, 0o600),
        ("link_insert", 0o640, GID, 0o600),
        ("conntrack_live", 0o640, 0, 0o600),
    ],
)
def test_the_group_reads_what_the_owner_reads(name: str, mode: int, gid: int, wanted: int) -> None:
    assert access.wanted_mode(name, mode, gid) == wanted


def test_a_group_that_is_not_there_is_roots() -> None:
    assert access.group_id("no-such-group") == 0
    assert access.group_id("root") == 0
    assert access.group_id("daemon") > 0


@pytest.mark.parametrize(
    ("gid", "mode", "is_ours", "group", "wanted"),
    [
        pytest.param(0, 0o1700, False, GID, (GID, 0o1710), id="root's alone: let through"),
        pytest.param(GID, 0o1710, True, GID, (GID, 0o1710), id="let through already"),
        pytest.param(0, 0o1777, False, GID, (0, 0o1777), id="open to all: left alone"),
        pytest.param(7, 0o0750, False, GID, (7, 0o0750), id="somebody else's: left alone"),
        pytest.param(GID, 0o1710, True, 0, (0, 0o1700), id="without a group: as it was"),
        pytest.param(7, 0o0750, False, 0, (7, 0o0750), id="never ours: left alone"),
    ],
)
def test_the_group_is_let_through_the_mount_point_and_no_further(
    gid: int, mode: int, is_ours: bool, group: int, wanted: tuple[int, int]
) -> None:
    assert access.mount_access(gid, mode, group, is_ours) == wanted


@needs_bpf
def test_a_mount_for_root_alone_lets_the_group_through_until_it_goes(pins: str) -> None:
    mount = os.path.dirname(pins)
    os.chmod(mount, 0o1700)
    access.grant(pins, GID)
    found = os.stat(mount)
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (GID, 0o1710)
    assert access.wrong(pins, GID) == []
    access.grant(pins, 0)
    found = os.stat(mount)
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0o1700)
