# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The maps of flows, written by a process rather than by the object's programs.

The same entries, counters and order of steps as in bpf/conntrack.bpf.c. A flow's cookie is the id
that conntrack gives it on netlink.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import time
from typing import Iterator

from ...bpf import bpf
from ...conntrack.ctnetlink import Direction, Flow
from ...conntrack.layout import (
    COUNTERS,
    FLAG_ORIG,
    FLAG_SEEDED,
    FLAGS_OFFSET,
    KEY,
    VALUE,
    possible_cpus,
    read_counters,
)


class _Map:
    """A map that is written again and again: the buffers of its calls are made once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._key = ctypes.create_string_buffer(KEY.size)
        self._value = ctypes.create_string_buffer(VALUE.size)
        self._whole = self._attributes(ctypes.addressof(self._value))
        # A call that takes no value refuses one
        self._key_only = self._attributes(0)

    def _attributes(self, value: int) -> ctypes.Array[ctypes.c_char]:
        packed = struct.pack("=IxxxxQQQ", self.fd, ctypes.addressof(self._key), value, 0)
        return ctypes.create_string_buffer(packed, len(packed))

    def _call(self, command: int, attributes: ctypes.Array[ctypes.c_char]) -> bool:
        """Whether the key was there; raises OSError for anything else that fails."""
        try:
            bpf.call(command, attributes)
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                return False
            raise
        return True

    def lookup(self, key: bytes) -> bytes | None:
        """The value, None if there is none."""
        self._key.raw = key
        return self._value.raw if self._call(bpf.MAP_LOOKUP_ELEM, self._whole) else None

    def update(self, key: bytes, value: bytes) -> None:
        """Writes a value."""
        self._key.raw, self._value.raw = key, value
        self._call(bpf.MAP_UPDATE_ELEM, self._whole)

    def delete(self, key: bytes) -> bool:
        """Removes a key; says whether it was there."""
        self._key.raw = key
        return self._call(bpf.MAP_DELETE_ELEM, self._key_only)


def netns_of(key: bytes) -> int:
    """The namespace of an entry."""
    return int.from_bytes(key[:4], "little" if struct.pack("=H", 1)[0] else "big")


class FlowTable:
    """Writes flows to the maps behind three descriptors. `counts` are the counters, kept here and
    written with `save_counts`.
    """

    def __init__(
        self, live_fd: int, closed_fd: int, counters_fd: int, tcpv6: bool, udpv6: bool
    ) -> None:
        self._live, self._closed = _Map(live_fd), _Map(closed_fd)
        self._counters_fd = counters_fd
        self._settings = (tcpv6, udpv6)
        self._cpus = possible_cpus()
        self.counts = read_counters(counters_fd)
        self._saved = dict(self.counts)

    def is_wanted(self, flow: Flow) -> bool:
        """Whether a flow belongs into the table."""
        return flow.is_translated and flow.is_enabled(*self._settings)

    def insert(self, netns: int, flow: Flow | None) -> None:
        """For a flow that has come."""
        self.counts["insert_hits"] += 1
        if flow is None:
            self.counts["insert_read_failed"] += 1
        elif not flow.is_translated:
            self.counts["insert_untranslated"] += 1
            self._forget_closed(netns, flow)
        elif not flow.is_enabled(*self._settings):
            self.counts["insert_disabled"] += 1
            self._forget_closed(netns, flow)
        elif self._write(netns, flow, time.monotonic_ns(), 0, 0):
            self.counts["inserted"] += 1

    def delete(self, netns: int, flow: Flow | None) -> None:
        """For a flow that has gone."""
        self.counts["delete_hits"] += 1
        if flow is None:
            self.counts["delete_read_failed"] += 1
            return
        if not flow.is_translated:
            return
        removed = successor = False
        for key in flow.keys(netns):
            value = self._live.lookup(key)
            if value is None:
                continue
            if VALUE.unpack(value)[0] in (0, flow.cookie):
                removed = self.close(key, value)
            else:
                successor = True
        self.counts["deleted"] += removed
        self.counts["delete_successor"] += successor

    def _forget_closed(self, netns: int, flow: Flow) -> None:
        """A flow that is not stored must not be answered by an older one with one of its tuples."""
        orig, reply = (self._closed.delete(key) for key in flow.keys(netns))
        if orig or reply:
            self.counts["superseded"] += 1

    def close(self, key: bytes, value: bytes) -> bool:
        """Moves an entry to the closed ones; the copy comes first, so that a reader finds it in one
        or the other.
        """
        fields = list(VALUE.unpack(value))
        fields[2] = time.monotonic_ns()
        try:
            self._closed.update(key, VALUE.pack(*fields))
        except OSError:
            self.counts["closed_update_failed"] += 1
        return self._live.delete(key)

    def see(self, netns: int, flow: Flow | None, generation: int) -> None:
        """For a flow that a dump came by: it is there afterwards, marked with the dump's number."""
        self.counts["seed_hits"] += 1
        if flow is None:
            self.counts["insert_read_failed"] += 1
            return
        if not self.is_wanted(flow):
            self._forget_closed(netns, flow)
            return
        orig, reply = (self._live.lookup(key) for key in flow.keys(netns))
        created, flags, is_known = time.monotonic_ns(), FLAG_SEEDED, False
        if orig is not None and reply is not None:
            is_known = VALUE.unpack(orig)[0] == VALUE.unpack(reply)[0] == flow.cookie
        if is_known and orig is not None:
            created, flags = VALUE.unpack(orig)[1], orig[FLAGS_OFFSET] & FLAG_SEEDED
        if self._write(netns, flow, created, flags, generation) and not is_known:
            self.counts["seeded"] += 1

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """All of the live ones."""
        return bpf.map_entries(self._live.fd)

    def _write(self, netns: int, flow: Flow, created: int, flags: int, generation: int) -> bool:
        """Both directions or none."""
        orig, reply = flow.keys(netns)
        head = (flow.cookie, created, 0)
        try:
            self._live.update(orig, _value(head, flow.reply, flags | FLAG_ORIG, generation))
            try:
                self._live.update(reply, _value(head, flow.orig, flags, generation))
            except OSError:
                self._live.delete(orig)
                raise
        except OSError as exc:
            full = exc.errno == errno.E2BIG
            self.counts["live_full" if full else "live_update_failed"] += 1
            return False
        return True

    def save_counts(self) -> None:
        """Writes the counters that have changed."""
        for index, name in enumerate(COUNTERS):
            if self.counts[name] != self._saved[name]:
                each_cpu = struct.pack("=Q", self.counts[name]).ljust(8 * self._cpus, b"\0")
                bpf.map_update(self._counters_fd, struct.pack("=I", index), each_cpu)
                self._saved[name] = self.counts[name]


def _value(head: tuple[int, int, int], other: Direction, flags: int, generation: int) -> bytes:
    return VALUE.pack(*head, *other, flags, generation)
