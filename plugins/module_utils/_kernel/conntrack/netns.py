# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and names of network namespaces. A number is the inode of the namespace's file."""

from __future__ import annotations

import os

_OWN = "/proc/thread-self/ns/net"
_NAMES = "/run/netns"


def own() -> int:
    """Return the number of the calling thread's namespace."""
    return os.stat(_OWN).st_ino


def root() -> int:
    """Return the number of the host's namespace; the caller's where that cannot be told."""
    try:
        return os.stat("/proc/1/ns/net").st_ino
    except OSError:
        return own()


def is_in_use(number: int) -> bool:
    """Return whether a namespace has this number now, as far as names and our own say."""
    return number in (own(), root()) or number in names()


def is_number_of(opened: os.stat_result, number: int) -> bool:
    """Return whether a file is the namespace of that number: other files have numbers as well."""
    return opened.st_ino == number and opened.st_dev == os.stat(_OWN).st_dev


def names() -> dict[int, str]:
    """Return the names that `ip netns` knows, by number."""
    result = {}
    try:
        listed = os.listdir(_NAMES)
    except OSError:
        return {}
    for name in listed:
        try:
            found = os.stat(os.path.join(_NAMES, name))
        except OSError:  # deleted meanwhile
            continue
        if is_number_of(found, found.st_ino):
            result[found.st_ino] = name
    return result
