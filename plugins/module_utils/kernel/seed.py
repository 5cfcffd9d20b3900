# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take-in of the flows that exist before the tracker does.

The loader asks each namespace for a dump of its conntrack table and throws the answer away: the
seed program sits on ctnetlink_fill_info() and writes each flow that goes by, with its address.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Callable

from . import bpf, netns
from .errors import LoaderError
from .layout import GENERATION_OFFSET, KEY, VALUE

NETLINK_NETFILTER = 12
# linux/netfilter/nfnetlink_conntrack.h: subsystem CTNETLINK, message IPCTNL_MSG_CT_GET
_CT_GET = (1 << 8) | 1
_NLM_F_REQUEST_DUMP = 0x1 | 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")

_COUNT_FILE = "/proc/sys/net/netfilter/nf_conntrack_count"

# Two passes a round; a second round is rare
MAX_ROUNDS = 4


def random_portid() -> int:
    """A netlink port id that no process gets by default (those are pids)."""
    return int(struct.unpack("=I", os.urandom(4))[0]) | 0x80000000


def drain_dump(portid: int) -> None:
    """Asks the calling thread's namespace for its table and reads the answer to its end.

    Flows that come or go meanwhile are the insert and delete programs' business.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.bind((portid, 0))
        sock.settimeout(30)
        # nfgenmsg: any family, version 0
        request = _HEADER.pack(20, _CT_GET, _NLM_F_REQUEST_DUMP, 1, portid) + bytes(4)
        sock.sendto(request, (0, 0))
        buffer = bytearray(1 << 16)
        while True:
            size = sock.recv_into(buffer)
            # DONE and ERROR come at the start of a datagram of their own or at its end
            if _ends(memoryview(buffer)[:size]):
                return


def _ends(datagram: memoryview) -> bool:
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, _flags, _seq, _pid = _HEADER.unpack_from(datagram, offset)
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            errno = -struct.unpack_from("=i", datagram, offset + 16)[0]
            raise OSError(errno, os.strerror(errno))
        if length < _HEADER.size:
            break
        offset += (length + 3) & ~3
    return False


def next_pass(number: int) -> int:
    """The number after `number`: 1 to 255, and round again; 0 stands for no pass."""
    return number % 255 + 1


def _drain_if_any(portid: int) -> None:
    # A dump walks the table of all namespaces, so the empty ones are spared it
    with open(_COUNT_FILE, encoding="ascii") as stream:
        if stream.read().strip() != "0":
            drain_dump(portid)


def take_in(live_fd: int, set_pass: Callable[[int], None], portid: int, last: int) -> int:
    """Takes in every namespace's flows and removes entries of flows that are no more.

    `set_pass` tells the seed program which pass it is; `last` is the number of the last pass
    that was ever made over this map. Returns the last one's number now. Raises LoaderError if a
    namespace cannot be read; one that disappears meanwhile is passed over.
    """
    visited: set[int] = set()
    for _round in range(MAX_ROUNDS):
        start_ns = time.monotonic_ns()
        for _pass in range(2):
            last = next_pass(last)
            set_pass(last)
            visited = _one_pass(portid)
        if not _remove_stale(live_fd, start_ns, last, visited):
            break
        # A removed entry may have stood in the way of a flow that now owns its tuple
    return last


def _one_pass(portid: int) -> set[int]:
    """Dumps every namespace; the inode numbers of those that were there."""
    visited = set()
    for inode, path in netns.find().items():
        try:
            netns.run_inside(path, lambda: _drain_if_any(portid))
            visited.add(inode)
        except FileNotFoundError:
            continue
        except OSError as exc:
            if not os.path.exists(path):
                continue
            raise LoaderError(
                f"cannot read the conntrack table of namespace {inode} ({exc.strerror}): "
                "existing flows would be missing, so nothing was loaded"
            ) from None
    return visited


def _remove_stale(live_fd: int, start_ns: int, last: int, visited: set[int]) -> int:
    """Removes entries older than `start_ns` that pass `last` did not come by; their number.

    Only in the namespaces that it visited: one that nothing but an open descriptor keeps alive
    cannot be found, and its entries are as good as ever.
    """
    removed = 0
    for keys, values in bpf.map_batches(live_fd, bpf.map_info(live_fd)):
        # The bytes of one field of all records at once: nearly all are of this pass
        for index, number in enumerate(values[GENERATION_OFFSET :: VALUE.size]):
            if number == last:
                continue
            value = values[index * VALUE.size : (index + 1) * VALUE.size]
            created_ns = VALUE.unpack(value)[1]
            if created_ns >= start_ns:
                continue
            key = keys[index * KEY.size : (index + 1) * KEY.size]
            if KEY.unpack(key)[0] not in visited:
                continue
            # Read again: a successor may have taken the tuple since
            if bpf.map_lookup(live_fd, key, VALUE.size) == value:
                removed += bpf.map_delete(live_fd, key)
    return removed


def copy_entries(from_fd: int, to_fd: int, since_ns: int = 0) -> int:
    """Copies what fits from one map to another of the same shape; entries there are kept.

    With `since_ns`, only flows that were closed then or later.
    """
    copied = 0
    for keys, values in bpf.map_batches(from_fd, bpf.map_info(from_fd)):
        for index in range(len(keys) // KEY.size):
            key = keys[index * KEY.size : (index + 1) * KEY.size]
            value = values[index * VALUE.size : (index + 1) * VALUE.size]
            if VALUE.unpack(value)[2] < since_ns:
                continue
            try:
                bpf.map_update(to_fd, key, value, bpf.NOEXIST)
            except FileExistsError:
                continue
            except OSError as exc:
                if exc.errno == bpf.E2BIG:
                    return copied
                raise
            copied += 1
    return copied
