# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take-in of the flows that exist before the tracker does.

The loader asks each namespace for a dump of its conntrack table and throws the answer away: the
seed program sits on ctnetlink_fill_info() and writes each flow that goes by, with its address.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import struct
import time
from itertools import islice
from typing import Callable, Container, Iterator, Mapping, NamedTuple

from ..bpf import bpf
from ..conntrack import namespaces
from ..conntrack.ctnetlink import Flow
from ..conntrack.layout import (
    CLOSED,
    COUNTERS_MAP,
    GENERATION_OFFSET,
    KEY,
    LIVE,
    LOAD,
    NETNS_ENDED,
    NETNS_KEY,
    NETNS_VALUE,
    VALUE,
    is_stale,
    read_counters,
)
from ..conntrack.namespaces import Namespace
from ..conntrack.query import Query, open_socket
from ..errors import LoaderError

NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h: subsystem CTNETLINK, messages IPCTNL_MSG_CT_*
_CT_NEW, _CT_GET = 1 << 8, (1 << 8) | 1
_NLM_F_REQUEST_DUMP = 0x1 | 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")

_COUNT_FILE = "/proc/sys/net/netfilter/nf_conntrack_count"

# Two passes a round; a second round is rare
MAX_ROUNDS = 4
# Stale entries that are looked at in one go
_AT_ONCE = 100000


def random_portid() -> int:
    """A netlink port id that no process gets by default (those are pids)."""
    return int(struct.unpack("=I", os.urandom(4))[0]) | 0x80000000


def drain_dump(portid: int) -> int:
    """Ask the calling thread's namespace for its table, and count the flows in the answer.

    Flows that come or go meanwhile are the insert and delete programs' business.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.bind((portid, 0))
        sock.settimeout(30)
        # nfgenmsg: any family, version 0
        request = _HEADER.pack(20, _CT_GET, _NLM_F_REQUEST_DUMP, 1, portid) + bytes(4)
        sock.sendto(request, (0, 0))
        buffer = bytearray(1 << 16)
        flows = 0
        while True:
            size = sock.recv_into(buffer)
            more, is_end = _scan(memoryview(buffer)[:size])
            flows += more
            if is_end:
                return flows


def _scan(datagram: memoryview) -> tuple[int, bool]:
    """The number of flows in a datagram, and whether the answer ends with it."""
    offset = flows = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _flags, _seq, _pid = _HEADER.unpack_from(datagram, offset)
        if kind == _NLMSG_DONE:
            return flows, True
        if kind == _NLMSG_ERROR:
            errno = -struct.unpack_from("=i", datagram, offset + 16)[0]
            raise OSError(errno, os.strerror(errno))
        if length < _HEADER.size:
            break
        flows += kind == _CT_NEW
        offset += (length + 3) & ~3
    return flows, False


def next_pass(number: int) -> int:
    """The number after `number`: 1 to 255, and round again; 0 stands for no pass."""
    return number % 255 + 1


def _drain_if_any(portid: int) -> int:
    # A dump walks the table of all namespaces, so the empty ones are spared it
    with open(_COUNT_FILE, encoding="ascii") as stream:
        return drain_dump(portid) if stream.read().strip() != "0" else 0


class MapCalls:
    """What a load does to whole maps, by map system calls."""

    def __init__(self, tell: Callable[[bytes], None] = lambda _load: None) -> None:
        self._tell = tell

    def set_pass(self, number: int) -> None:
        """Tells the seed program which pass it is."""
        self._tell(LOAD.pack(0, 0, number))

    def stale(self, fd: int, start_ns: int, last: int) -> Iterator[tuple[bytes, bytes]]:
        """Entries made before `start_ns` that pass `last` did not come by."""
        for key, value in bpf.map_entries(fd):
            if is_stale(value, last, start_ns):
                yield key, value

    def copy(self, from_fd: int, to_fd: int, since_ns: int = 0) -> None:
        """Copies what fits from one map to another of the same shape; entries there are kept.

        With `since_ns`, only flows that were closed then or later.
        """
        for key, value in bpf.map_entries(from_fd):
            if VALUE.unpack(value)[2] < since_ns:
                continue
            try:
                bpf.map_update(to_fd, key, value, bpf.NOEXIST)
            except FileExistsError:
                continue
            except OSError as exc:
                if exc.errno == bpf.E2BIG:
                    return
                raise


class MapIterators(MapCalls):
    """The same inside of the kernel, by the object's iterators.

    That is quicker, and a map system call makes its CPU miss flows that an interrupt inserts
    (see `reading`).
    """

    def __init__(
        self, tell: Callable[[bytes], None], stale_program: int, copy_program: int
    ) -> None:
        super().__init__(tell)
        self._stale_program = stale_program
        self._copy_program = copy_program

    def stale(self, fd: int, start_ns: int, last: int) -> Iterator[tuple[bytes, bytes]]:
        self._tell(LOAD.pack(0, start_ns, last))
        return bpf.split_entries(self._run(self._stale_program, fd), KEY.size, VALUE.size)

    def copy(self, from_fd: int, _to_fd: int, since_ns: int = 0) -> None:
        # Each entry goes to the object's own map of its kind, which is what `_to_fd` is
        self._tell(LOAD.pack(since_ns, 0, 0))
        for _piece in self._run(self._copy_program, from_fd):
            pass

    def _run(self, program: int, map_fd: int) -> Iterator[bytes]:
        with bpf.closing(bpf.iterator_link(program, map_fd)) as link:
            yield from bpf.run_iterator(link)


def take_in(
    live_fd: int,
    maps: MapCalls,
    portid: int,
    last: int,
    hits: Callable[[], int] | None = None,
) -> int:
    """Takes in every namespace's flows and removes entries of flows that are no more.

    `last` is the number of the last pass that was ever made over this map, `hits` tells the runs of
    the sync program so far. Returns the last pass's number now. Raises LoaderError if a namespace
    cannot be read, or if the program runs for fewer flows than the kernel dumps; a namespace that
    disappears meanwhile is passed over.
    """
    for _round in range(MAX_ROUNDS):
        start_ns = time.monotonic_ns()
        unseen = 0
        for _pass in range(2):
            last = next_pass(last)
            maps.set_pass(last)
            before = hits() if hits else 0
            visited, dumped = _one_pass(portid)
            if hits:
                # A flow that did not fit into a message is filled in twice: it can run more often
                unseen = max(unseen, dumped - (hits() - before))
        # What was not seen would be taken for gone
        if not unseen and not _remove(live_fd, maps.stale(live_fd, start_ns, last), visited):
            return last
        # A removed entry may have stood in the way of a flow that now owns its tuple
    if unseen:
        raise LoaderError(
            f"{unseen} of {dumped} flows that exist went past the program that takes them in: "
            "end what else traces this kernel (`bpftool link`) and load again"
        )
    return last


def _one_pass(portid: int) -> tuple[dict[int, Namespace], int]:
    """Dumps every namespace: those that were there, by inode number, and how many flows."""
    visited, unread, flows = _dump_all(portid, math.inf)
    for number, exc in unread.items():
        failed = "enter" if isinstance(exc, namespaces.CannotEnter) else "read the flows of"
        raise LoaderError(
            f"cannot {failed} network namespace {number} ({exc.strerror}): "
            "existing flows would be missing, so nothing was loaded"
        ) from None
    return visited, flows


def _dump_all(portid: int, deadline: float) -> tuple[dict[int, Namespace], dict[int, OSError], int]:
    """Dumps every namespace; those that were read, why the others that are there were not, and how
    many flows.
    """
    visited, unread, flows = {}, {}, 0
    for number, namespace in namespaces.find().items():
        _require_time(deadline)
        try:
            flows += namespace.run(lambda: _drain_if_any(portid))
            visited[number] = namespace
        except namespaces.Gone:
            continue
        except OSError as exc:
            unread[number] = exc
    return visited, unread, flows


def _remove(live_fd: int, stale: Iterator[tuple[bytes, bytes]], visited: Container[int]) -> int:
    """Removes stale entries; their number.

    Only in the namespaces that were visited: one that sockets alone keep alive is never found, and
    its entries are as good as ever.
    """
    removed = 0
    for key, value in stale:
        # Read again: a successor may have taken the tuple since
        if KEY.unpack(key)[0] in visited and bpf.map_lookup(live_fd, key, VALUE.size) == value:
            removed += bpf.map_delete(live_fd, key)
    return removed


# --- while the tracker runs ---------------------------------------------------------------------


class Reconciled(NamedTuple):
    """Entries that were added and removed, the number of the last pass, and the namespaces that
    could not be read.
    """

    added: int
    removed: int
    last_pass: int
    unread: tuple[int, ...] = ()


class Reconciler:
    """Brings the maps of a tracker that runs to what the kernel has. The seed program is attached.

    `fds` has the descriptors of the maps. `seconds` limits it: LoaderError is raised after them,
    with what is right so far done.
    """

    def __init__(
        self, fds: Mapping[str, int], maps: MapCalls, portid: int, seconds: float = math.inf
    ) -> None:
        self._fds = fds
        self._maps = maps
        self._portid = portid
        self._deadline = time.monotonic() + seconds

    def run(self, last: int) -> Reconciled:
        """Add what the maps lack, and close what the kernel lacks; `last` is as in `take_in`.

        A second pass is made only where the first has written entries: a flow that ended just then
        would stay for ever. An entry is closed after the kernel was asked for its flow by itself,
        because a dump can pass over one while the kernel's table grows.
        """
        start_ns, before = time.monotonic_ns(), self._seeded()
        for number in range(2):
            last = next_pass(last)
            self._maps.set_pass(last)
            visited, unread, _flows = _dump_all(self._portid, self._deadline)
            if number == 0 and self._seeded() == before:
                break
        removed, more = 0, True
        while more:
            stale = list(islice(self._maps.stale(self._fds[LIVE], start_ns, last), _AT_ONCE))
            closed = self._close_stale(stale, visited, last)
            removed += closed
            more = closed > 0 and len(stale) == _AT_ONCE
        return Reconciled(2 * (self._seeded() - before), removed, last, tuple(unread))

    def _close_stale(
        self, stale: list[tuple[bytes, bytes]], visited: Mapping[int, Namespace], last: int
    ) -> int:
        by_namespace: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in stale:
            by_namespace.setdefault(KEY.unpack(key)[0], []).append((key, value))
        closed = 0
        for inode, entries in by_namespace.items():
            try:
                if inode in visited:
                    ask = functools.partial(self._ask_for, entries, last)
                    closed += visited[inode].run(ask)
                else:
                    closed += self._close_of_ended(inode, entries)
            except (namespaces.Gone, namespaces.CannotEnter):  # the next time will tell
                continue
        return closed

    def _seeded(self) -> int:
        return read_counters(self._fds[COUNTERS_MAP])["seeded"]

    def _ask_for(self, entries: list[tuple[bytes, bytes]], last: int) -> int:
        """In their namespace: close those whose flows the kernel does not have."""
        removed = 0
        with contextlib.closing(Query(open_socket(self._portid), 1)) as query:
            for key, value in entries:
                _require_time(self._deadline)
                try:
                    # The seed program sees the answer, too, and marks the entry
                    flow = query.find(key)
                except OSError:  # the next time will tell
                    continue
                if flow is not None and is_of(flow, key, value):
                    self._renew(query, key, value, last)
                    continue
                removed += self._close(key, value)
                if flow is not None:
                    query.find(key)  # the way is free for the flow that has this tuple now
        return removed

    def _renew(self, query: Query, key: bytes, value: bytes, last: int) -> None:
        """Where an entry is not marked though its flow lives, it is an older flow's, with the same
        tuples: the seed program writes both directions anew, or else they stay.
        """
        live = self._fds[LIVE]
        found = bpf.map_lookup(live, key, VALUE.size)
        if found is None or found[GENERATION_OFFSET] == last:
            return
        far = other_key(key, value)
        former = {key: value, far: bpf.map_lookup(live, far, VALUE.size)}
        for each in former:
            bpf.map_delete(live, each)
        with contextlib.suppress(OSError):
            query.find(key)
        for each, its in former.items():
            if its is not None:
                with contextlib.suppress(FileExistsError):
                    bpf.map_update(live, each, its, bpf.NOEXIST)

    def _close_of_ended(self, inode: int, entries: list[tuple[bytes, bytes]]) -> int:
        """Close those of a namespace that is gone; one that sockets alone keep is never found."""
        ended = bpf.map_lookup(self._fds[NETNS_ENDED], NETNS_KEY.pack(inode), NETNS_VALUE.size)
        if ended is None:
            return 0
        (at_ns,) = NETNS_VALUE.unpack(ended)
        return sum(
            self._close(key, value) for key, value in entries if VALUE.unpack(value)[1] <= at_ns
        )

    def _close(self, key: bytes, value: bytes) -> bool:
        """Move an entry to the closed ones, unless it has changed since it was read."""
        live = self._fds[LIVE]
        if bpf.map_lookup(live, key, VALUE.size) != value:
            return False
        fields = list(VALUE.unpack(value))
        fields[2] = time.monotonic_ns()
        bpf.map_update(self._fds[CLOSED], key, VALUE.pack(*fields))
        return bpf.map_delete(live, key)


def other_key(key: bytes, value: bytes) -> bytes:
    """The key of an entry's other direction."""
    netns, _zone, family, protocol, *_ends = KEY.unpack(key)
    _ct, _created, _closed, *other, zone, _flags, _generation = VALUE.unpack(value)
    return KEY.pack(netns, zone, family, protocol, *other)


def is_of(flow: Flow, key: bytes, value: bytes) -> bool:
    """Whether an entry is of this flow: its key is one direction, its value the other one."""
    netns = KEY.unpack(key)[0]
    return flow.is_translated and {key, other_key(key, value)} == set(flow.keys(netns))


def _require_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise LoaderError(
            "reconciling was not done in time: what is right so far is done, it is tried again"
        )
