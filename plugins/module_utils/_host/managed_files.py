# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are root's and that one group may read: what there is, and replacing it."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from typing import Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import (
    write_atomically,
)

from .systemd import file_digest

MODE = 0o640


class File(NamedTuple):
    """A file's digest, and its owner, group and mode; all None if it is not there."""

    digest: str | None = None
    access: str | None = None


def access_of(group: str) -> str:
    """The access that `put` gives, as in File."""
    return f"root:{group} {MODE:04o}"


def digest(content: bytes) -> str:
    """SHA-256 (hex)."""
    return hashlib.sha256(content).hexdigest()


def read(path: str) -> File:
    """What there is."""
    found_digest = file_digest(path)
    if found_digest is None:
        return File()
    return File(found_digest, access(os.stat(path)))


def access(found: os.stat_result) -> str:
    """Owner, group and mode, as in File."""
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f"{owner}:{group} {stat.S_IMODE(found.st_mode):04o}"


def put(
    paths: Mapping[str, str],
    before: Mapping[str, File],
    after: Mapping[str, File],
    contents: Mapping[str, bytes | None],
    gid: int,
) -> None:
    """Brings files from `before` to `after`, by name; a content of None stays as it is."""
    for name, path in paths.items():
        if before[name] == after[name]:
            continue
        content = contents.get(name)
        if content is not None:
            write_atomically(path, content, MODE, gid)
        else:
            os.chown(path, 0, gid)
            os.chmod(path, MODE)
