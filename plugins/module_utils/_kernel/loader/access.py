# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may read the pins: root, and the group of the poller agent where there is one.

The agent then needs no privilege to read the maps. Links stay root's alone, since the kernel opens
them only for writing too. systemd mounts the bpf file system for root alone, so the group is let
through there as well (not to list it), unless that folder has a group of somebody else's already.
"""

from __future__ import annotations

import grp
import os
import stat
from typing import Iterator, NamedTuple

GROUP = "btfleet"
_LINKS = ("link_", "new_link_")


class Wrong(NamedTuple):
    """A pin (or the folder) whose group or mode is not as it should be, and how they should be."""

    path: str
    gid: int
    mode: int


def group_id(name: str = GROUP) -> int:
    """The group that may read; root's where the host has no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return 0


def wanted_mode(name: str, mode: int, gid: int) -> int:
    """The mode of a pin that has `mode` now: the group reads what its owner reads."""
    own = mode & 0o700
    if gid == 0 or name.startswith(_LINKS):
        return own
    return own | (own & 0o500) >> 3


def wrong(folder: str, gid: int) -> list[Wrong]:
    """What is not as the group `gid` needs it; nothing if there are no pins."""
    return [found for found in _wanted(folder, gid) if _differs(found)]


def grant(folder: str, gid: int) -> None:
    """Puts that right. The folder comes last, so that it opens on what is right already."""
    for found in wrong(folder, gid):
        os.chown(found.path, 0, found.gid)
        os.chmod(found.path, found.mode)


def describe(found: list[Wrong]) -> tuple[str, ...]:
    """A line of drift, if anything is wrong."""
    names = ", ".join(os.path.basename(one.path) for one in found)
    return (f"group or mode of {names} is not as it should be",) if found else ()


def mount_access(found_gid: int, mode: int, gid: int, is_ours: bool) -> tuple[int, int]:
    """Group and mode of the mount point, from those that it has; `gid` is 0 without a group.

    `is_ours` says whether its group is the agent's, also if that group is no more.
    """
    if gid == 0:
        return (0, mode & ~0o070) if is_ours else (found_gid, mode)
    if mode & 0o001 or (found_gid != 0 and not is_ours):
        return found_gid, mode
    return gid, mode & ~0o070 | 0o010


def _wanted_mount(folder: str, gid: int) -> Iterator[Wrong]:
    mount = os.path.dirname(folder)
    try:
        found = os.stat(mount)
    except FileNotFoundError:
        return
    is_ours = found.st_gid != 0 and (found.st_gid == gid or not _is_group(found.st_gid))
    yield Wrong(mount, *mount_access(found.st_gid, stat.S_IMODE(found.st_mode), gid, is_ours))


def _is_group(gid: int) -> bool:
    try:
        grp.getgrgid(gid)
    except KeyError:
        return False
    return True


def _wanted(folder: str, gid: int) -> Iterator[Wrong]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        yield from _wanted_mount(folder, 0)
        return
    yield from _wanted_mount(folder, gid)
    for name in names:
        path = os.path.join(folder, name)
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:  # unpinned meanwhile
            continue
        links = name.startswith(_LINKS)
        yield Wrong(path, 0 if links else gid, wanted_mode(name, mode, gid))
    yield Wrong(folder, gid, 0o750 if gid else 0o700)


def _differs(wanted: Wrong) -> bool:
    try:
        found = os.stat(wanted.path)
    except FileNotFoundError:
        return False
    return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (
        0,
        wanted.gid,
        wanted.mode,
    )
