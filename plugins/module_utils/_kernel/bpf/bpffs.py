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
from . import bpf
from .libc import filesystem_magic

MOUNT = "/sys/fs/bpf"
# The tracker of this host
FOLDER = f"{MOUNT}/btfleet"
RECORD = "loaded"
_NEW = "new_"


def check_mounted(mount: str = MOUNT) -> None:
    """Raises LoaderError unless a bpf file system is mounted at `mount`."""
    try:
        magic = filesystem_magic(mount)
    except OSError as exc:
        raise LoaderError(f"{mount} cannot be read ({exc.strerror}): mount bpffs there") from None
    if magic != bpf.BPFFS_MAGIC:
        raise LoaderError(
            f"no bpf file system at {mount} (found type {magic:#x}): "
            f"run `mount -t bpf bpf {mount}`, and enable sys-fs-bpf.mount for the next boot"
        )


class Pins:
    """The pins of one tracker: a flat folder of maps, links and the record."""

    def __init__(self, folder: str = FOLDER, record: str = RECORD) -> None:
        self.folder = folder
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
            return bpf.obj_get(self.path(name), flags)
        except FileNotFoundError:
            return None

    def open_map(self, name: str) -> int:
        """A read-only descriptor of a map; raises LoaderError if no tracker is loaded."""
        fd = self.open(name, bpf.RDONLY)
        if fd is None:
            raise LoaderError(
                f"no tracker is loaded ({self.path(name)} is missing): load one first "
                "(`btfleet load`, or the playbook btfleet.conntrack.rollout)"
            )
        return fd

    def unfinished(self) -> list[str]:
        """The pins of a load that is under way, or was killed."""
        return [name for name in self.names() if name.startswith(_NEW)]

    def recover(self) -> None:
        """Ends what a killed loader left: forwards if its set was complete, else backwards."""
        left = self.unfinished()
        if _NEW + self.record in left:
            self._commit([name[len(_NEW) :] for name in left])
        else:
            for name in left:
                os.unlink(self.path(name))

    def replace(self, descriptors: dict[str, int]) -> None:
        """Pins all of `descriptors` (the record among them) in place of what stood there.

        What else is pinned there goes. Raises LoaderError, with the old set in place, if one cannot
        be pinned.
        """
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self.recover()
        names = [name for name in descriptors if name != self.record] + [self.record]
        try:
            for name in names:
                bpf.obj_pin(descriptors[name], self.path(_NEW + name))
        except OSError as exc:
            for made in names:
                if _NEW + made in self.names():
                    os.unlink(self.path(_NEW + made))
            raise LoaderError(
                f"cannot pin {name} in {self.folder} ({exc.strerror}): "
                "the tracker that ran before keeps running"
            ) from None
        self._commit(names)
        for name in set(self.names()) - set(names):
            os.unlink(self.path(name))

    def _commit(self, names: list[str]) -> None:
        for name in sorted(names, key=lambda n: n == self.record):
            os.rename(self.path(_NEW + name), self.path(name))

    def remove(self) -> None:
        """Unpins everything, links first, so that programs never write to maps nobody sees."""
        for name in sorted(self.names(), key=lambda name: not name.startswith("link_")):
            os.unlink(self.path(name))
        if os.path.isdir(self.folder):
            os.rmdir(self.folder)
