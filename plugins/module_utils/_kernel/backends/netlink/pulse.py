# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sign of life of the process that follows conntrack events, in a map pinned with the others.

A load makes a new one, so a process that writes to it has taken that very load in.
"""

from __future__ import annotations

import struct
import time
from typing import NamedTuple

from ...bpf import bpf

PIN = "follower"
# How a line of drift begins where nobody follows
NOT_FOLLOWED = "no process follows the conntrack events"

_LAYOUT = struct.Struct("=13Q")
# Busy machines are slow, but not that slow
_DEAD_AFTER_NS = 10 * 10**9


class Pulse(NamedTuple):
    """`beat_ns` (CLOCK_MONOTONIC) is 0 until all existing flows are taken in; `owner` is a random
    number of the process `pid`. Of the namespaces that are there, it follows `namespaces`;
    `no_descriptor` and `no_entry` of them it does not, because it may open no more files or cannot
    enter them, and `no_events` (which it follows, and compares) send none. `unfollowed_inode` is
    one that it does not follow, `silent_inode` one that sends no events.
    `overruns` are losses of events, each made good by a comparison with the kernel's table;
    `comparisons` counts those, and `repaired` the entries of flows that had ended unannounced.
    """

    beat_ns: int = 0
    owner: int = 0
    pid: int = 0
    namespaces: int = 0
    no_descriptor: int = 0
    no_entry: int = 0
    no_events: int = 0
    unfollowed_inode: int = 0
    silent_inode: int = 0
    events: int = 0
    overruns: int = 0
    comparisons: int = 0
    repaired: int = 0

    @property
    def unfollowed(self) -> int:
        """How many namespaces are not followed."""
        return self.no_descriptor + self.no_entry

    def is_alive(self, now_ns: int | None = None) -> bool:
        """Whether the process has given a sign of life lately."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        return self.beat_ns > 0 and now - self.beat_ns < _DEAD_AFTER_NS

    def to_dict(self) -> dict[str, int | bool]:
        """For people and programs, without what only processes tell each other."""
        data: dict[str, int | bool] = {
            name: value
            for name, value in self._asdict().items()
            if name not in ("beat_ns", "owner")
        }
        data["unfollowed"] = self.unfollowed
        data["alive"] = self.is_alive()
        return data


def make_map() -> int:
    """A map for a new load."""
    return bpf.map_create(bpf.ARRAY, 4, _LAYOUT.size, 1, "btfleet_pulse")


def read(fd: int) -> Pulse:
    """What the map says; nothing if another release has made it."""
    if bpf.map_info(fd).value_size != _LAYOUT.size:
        return Pulse()
    raw = bpf.map_lookup(fd, bytes(4), _LAYOUT.size)
    return Pulse(*_LAYOUT.unpack(raw)) if raw else Pulse()


def write(fd: int, pulse: Pulse) -> None:
    """Says it."""
    bpf.map_update(fd, bytes(4), _LAYOUT.pack(*pulse))


def drift(pulse: Pulse | None) -> list[str]:
    """What is not as it should be."""
    if pulse is None or not pulse.is_alive():
        return [f"{NOT_FOLLOWED}: flows come and go unseen"]
    return []


def unfollowed(pulse: Pulse | None) -> list[str]:
    """What a process that is alive does not see: a line for each reason."""
    if pulse is None or not pulse.is_alive():
        return []  # drift says so
    reasons = (
        (
            pulse.no_descriptor,
            "no file descriptor is left for them (raise LimitNOFILE= of the unit that follows)",
        ),
        (
            pulse.no_entry,
            "they cannot be entered (the journal of btfleet-conntracker.service says why)",
        ),
    )
    return [
        f"network namespaces that are not followed: {count}, such as {pulse.unfollowed_inode}: "
        f"{why}"
        for count, why in reasons
        if count
    ]


def silent(pulse: Pulse | None) -> str | None:
    """What is only found by comparing, because nobody announces it; None if there is nothing."""
    if pulse is None or not pulse.no_events:
        return None
    return (
        f"network namespaces that send no events: {pulse.no_events}, such as {pulse.silent_inode}: "
        "flows that come and go between two comparisons are missed there"
    )
