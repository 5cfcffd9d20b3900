# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive of minimized BTF: types of kernels that do not bring their own.

A tar file with a member for each build of a kernel:
OS-ID/OS-VERSION/ARCH/RELEASE/BUILD.btf, where RELEASE and BUILD are `uname -r` and `uname -v`.
The very build is taken, else another build of the same release of the same system, which keeps its
types the same; another release never, since it would load and read the wrong bytes.
"""

from __future__ import annotations

import os
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Iterable, Iterator

from .. import os_release
from ..errors import BtfNotFound
from ..store import Store

PATH = Store().btf_archive_path
SUFFIX = ".btf"

# All that the object reads takes some kilobytes; a whole kernel's BTF some megabytes
_LARGEST = 64 << 20
_UNUSUAL = re.compile(r"[^A-Za-z0-9.+~-]+")


@dataclass(frozen=True)
class Kernel:
    """What a kernel is told by. `build` is what `uname -v` says."""

    os_id: str
    os_version: str
    arch: str
    release: str
    build: str

    @property
    def member(self) -> str:
        """Its name in an archive."""
        parts = (self.os_id, self.os_version, self.arch, self.release, self.build)
        return "/".join(_UNUSUAL.sub("_", part) for part in parts) + SUFFIX


def running() -> Kernel:
    """The kernel of this host."""
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:
            system = os_release.parse(stream.read())
    except OSError:
        system = {}
    uname = platform.uname()
    return Kernel(
        system.get("ID", "unknown"),
        system.get("VERSION_ID", "unknown"),
        uname.machine,
        uname.release,
        uname.version,
    )


def choose(members: Iterable[str], kernel: Kernel) -> str | None:
    """The member that this kernel can take, None if there is none."""
    wanted = kernel.member.split("/")
    same = [name for name in sorted(members) if name.split("/")[2:4] == wanted[2:4]]
    for name in same:
        if name.split("/")[4:] == wanted[4:]:
            return name
    others = [name for name in same if name.split("/")[0] == wanted[0] and name.count("/") == 4]
    return others[-1] if others else None


def find(kernel: Kernel, path: str = PATH) -> tuple[str, bytes] | None:
    """The member for this kernel and its content; None without an archive, or without a member.

    Raises BtfNotFound if the archive is damaged.
    """
    import tarfile  # noqa: PLC0415  (slow, and seldom needed)

    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {one.name: one for one in archive.getmembers() if one.isfile()}
            name = choose(members, kernel)
            stream = archive.extractfile(members[name]) if name else None
            if name is None or stream is None:
                return None
            if members[name].size > _LARGEST:
                raise BtfNotFound(f"{path} is damaged ({name} is too large): build it again")
            return name, stream.read()
    except FileNotFoundError:
        return None
    except (OSError, EOFError, tarfile.TarError) as exc:
        raise BtfNotFound(f"{path} is damaged ({exc}): build it again") from None


@contextmanager
def as_file(content: bytes) -> Iterator[str]:
    """A path that libbpf can read the content from; nothing is written to a disk."""
    fd = os.memfd_create("btfleet-btf")
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
