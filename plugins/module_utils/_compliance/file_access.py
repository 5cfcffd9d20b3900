# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Owners, groups and modes of all that is managed: as found, and as they are written."""

from __future__ import annotations

import os
import stat
from typing import Iterator, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import managed_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release

from .units import UNITS

# Everybody may read what is no secret, and root alone writes it
_FILE, _FOLDER = "root:root 0644", "root:root 0755"
_OWN_FOLDER = f"{poller_agent.ACCOUNT}:{poller_agent.ACCOUNT} 0750"
_ROOT_ALONE = "root's, and nobody else may write"


class Access(NamedTuple):
    """`found` and `wanted` as owner:group mode."""

    path: str
    found: str
    wanted: str


def read(
    store: Store, releases: release.Layout, agent: poller_agent.Layout, current: str | None
) -> tuple[Access, ...]:
    """Of everything that is there, and of what can be changed in the current release.

    What is missing is not in it: other controls say so.
    """
    found = []
    for path, wanted in _wanted(store, releases, agent):
        try:
            found.append(Access(path, managed_files.access(os.lstat(path)), wanted))
        except FileNotFoundError:
            continue
    if current is not None:
        found += open_to_others(releases.folder(current))
    return tuple(found)


def _wanted(
    store: Store, releases: release.Layout, agent: poller_agent.Layout
) -> Iterator[tuple[str, str]]:
    folders = (agent.etc, store.state_folder, store.objects_folder)
    yield from ((path, _FOLDER) for path in (*folders, os.path.dirname(store.applied_path)))
    yield from ((path, _FOLDER) for path in (releases.root, releases.releases))
    files = [store.spec_path, store.remote_path, store.results_path, store.applied_path]
    files += [store.object_path(sha256) for sha256 in store.objects()]
    files += [os.path.join(releases.units, name) for name in UNITS]
    yield from ((path, _FILE) for path in files)
    yield from ((agent.file(name), poller_agent.ACCESS) for name in poller_agent.FILES)
    yield from ((path, _OWN_FOLDER) for path in (agent.state, agent.runtime))


def open_to_others(folder: str) -> Iterator[Access]:
    """What somebody else than root could change in a folder."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if found.st_uid != 0 or (found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)):
                    yield Access(entry.path, managed_files.access(found), _ROOT_ALONE)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
