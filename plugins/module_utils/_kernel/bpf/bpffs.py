# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the tracker is pinned, and swapping pins so that a crash never leaves a mixture.

bpffs renames atomically. A new set of pins is first made beside the old one as new_NAME (bpffs
takes no dots), the record last: from then on the set is complete and a crash is finished
forwards; before that it is taken back.
"""

from __future__ import annotations

import os

from ..errors import LoaderError
from . import calls
from .calls import BPFFS_MAGIC, RDONLY
from .libc import filesystem_magic

TYPE_CHECKING = False  # typing's own costs a look-up more than all the rest
if TYPE_CHECKING:
    from typing import Collection, Mapping

MOUNT = "/sys/fs/bpf"
# The tracker of this host
FOLDER = f"{MOUNT}/btfleet"
RECORD = "loaded"
# A pin that waits for its place
STAGED = "new_"
# The host's file system, from a mount namespace of another kind
_HOST = "/proc/1/root"


def host_folder() -> str:
    """Return where the tracker of this host is pinned, as seen from here.

    A mount namespace may have a /sys of its own without the bpf file system, as `ip netns exec`
    makes it: then the tracker is reached through process 1, by whoever may.
    """
    if not os.path.isdir(FOLDER) and os.path.isdir(_HOST + FOLDER):
        return _HOST + FOLDER
    return FOLDER


def why_out_of_sight() -> str | None:
    """Return why a tracker that is loaded would not be seen from here, None if it would."""
    try:
        if filesystem_magic(MOUNT) == BPFFS_MAGIC:
            return None
    except OSError:
        pass
    return (
        f"no bpf file system is at {MOUNT}: load a tracker first, or, where a container or another "
        "mount namespace hides the host's, run it outside of that"
    )


def check_mounted(mount: str = MOUNT) -> None:
    """Raises LoaderError unless a bpf file system is mounted at `mount`."""
    try:
        magic = filesystem_magic(mount)
    except OSError as exc:
        raise LoaderError(f"{mount} cannot be read ({exc.strerror}): mount bpffs there") from None
    if magic != BPFFS_MAGIC:
        if mount == MOUNT and os.path.isdir(_HOST + FOLDER):
            raise LoaderError(
                f"no bpf file system at {mount} here, and the host has one: run it outside of this "
                "mount namespace (`nsenter --mount=/proc/1/ns/mnt …`)"
            )
        raise LoaderError(
            f"no bpf file system at {mount} (found type {magic:#x}): "
            f"run `mount -t bpf bpf {mount}`, and enable sys-fs-bpf.mount for the next boot"
        )


class Pins:
    """The pins of one tracker: a flat folder of maps, links and the record."""

    def __init__(self, folder: str | None = None, record: str = RECORD) -> None:
        self.folder = folder or host_folder()
        self.record = record

    def path(self, name: str) -> str:
        """Where `name` is pinned."""
        return os.path.join(self.folder, name)

    def names(self) -> list[str]:
        """What is pinned now, half-made sets included."""
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []

    def open(self, name: str, flags: int = 0) -> int | None:
        """The descriptor of a pin, None if it is not there."""
        try:
            return calls.obj_get(self.path(name), flags)
        except FileNotFoundError:
            return None

    def open_map(self, name: str) -> int:
        """A read-only descriptor of a map; raises LoaderError if no tracker is loaded."""
        fd = self.open(name, RDONLY)
        if fd is None:
            out_of_sight = why_out_of_sight()
            if out_of_sight and self.folder == FOLDER:
                raise LoaderError(out_of_sight)
            raise LoaderError(
                f"no tracker is loaded ({self.path(name)} is missing): load one first "
                "(`btfleet load`, or the playbook btfleet.conntrack.rollout)"
            )
        return fd

    def unfinished(self) -> list[str]:
        """The pins of a load that is under way, or was killed."""
        return [name for name in self.names() if name.startswith(STAGED)]

    def recover(self) -> None:
        """End what a killed loader left: forwards if its set was complete, else backwards."""
        if STAGED + self.record in self.unfinished():
            self.commit()
        else:
            self.take_back()

    def replace(self, descriptors: Mapping[str, int]) -> None:
        """Pin all of `descriptors` (the record among them) in place of what stood there.

        What else is pinned there goes. Raises LoaderError, with the old set in place, if one cannot
        be pinned.
        """
        self.recover()
        self.stage(descriptors)
        self.commit(descriptors)

    def stage(self, descriptors: Mapping[str, int]) -> None:
        """Pin all of `descriptors` beside what is active, the record last.

        Raises LoaderError, with nothing staged, if one cannot be pinned.
        """
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        names = [*(name for name in descriptors if name != self.record), self.record]
        for name in names:
            try:
                calls.obj_pin(descriptors[name], self.path(STAGED + name))
            except OSError as exc:
                self.take_back()
                reason = exc.strerror
                raise LoaderError(f"cannot pin {name} in {self.folder} ({reason})") from None

    def commit(self, known: Collection[str] | None = None) -> None:
        """Put what is staged in the place of what is active, and unpin what is not `known`."""
        staged = self.unfinished()
        for name in sorted(staged, key=lambda name: name == STAGED + self.record):
            os.rename(self.path(name), self.path(name[len(STAGED) :]))
        if known is not None:
            for name in set(self.names()) - set(known):
                os.unlink(self.path(name))

    def take_back(self) -> None:
        """Unpin what is staged, the record first: without it the set is not complete."""
        for name in sorted(self.unfinished(), key=lambda name: name != STAGED + self.record):
            os.unlink(self.path(name))

    def remove(self) -> None:
        """Unpins everything, links first, so that programs never write to maps nobody sees."""
        for name in sorted(self.names(), key=lambda name: not name.startswith("link_")):
            os.unlink(self.path(name))
        if os.path.isdir(self.folder):
            os.rmdir(self.folder)
