# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two flows of the loader's own, which its programs have to see before anybody relies on them.

A function can be in kallsyms and never run, because the compiler has put it into its callers, or
have its arguments elsewhere (a `.constprop` copy): then a program attaches, and sees nothing. So
one flow is there before the programs are, for the initial sync to find, and one comes and goes when
they are attached. They are made by conntrack netlink in a network namespace of the loader's own,
which goes with them; no packet and no rule is needed, because a flow's reply can be given freely.
"""

from __future__ import annotations

import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Mapping, TypeVar

from ..bpf import bpf
from ..bpf.libc import CLONE_NEWNET, unshare
from ..conntrack import ctnetlink
from ..conntrack.ctnetlink import Direction, Flow
from ..conntrack.layout import GENERATION_OFFSET, VALUE, read_counters
from ..errors import LoaderError
from . import seed

Result = TypeVar("Result")

_UDP = 17
_SECONDS = 30.0


def _flow(port: int) -> Flow:
    """Translated, with addresses that RFC 5737 keeps for examples."""
    near, far, public = (
        socket.inet_aton(text).ljust(16, b"\0")
        for text in ("192.0.2.1", "198.51.100.1", "203.0.113.1")
    )
    orig = Direction(near, far, port, port + 1, 0)
    return Flow(socket.AF_INET, _UDP, 0, orig, Direction(far, public, port + 1, port + 2, 0))


FROM_BEFORE, NEW = _flow(10), _flow(20)


class OwnFlows:
    """The flows, in a namespace of their own where one can be made; gone when this ends."""

    def __init__(self) -> None:
        # A thread is in the namespace, and its work is done there
        self._inside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="selftest")
        self._there: list[Flow] = []
        self.netns = self.run(_enter)

    def run(self, work: Callable[[], Result]) -> Result:
        """Do something in the namespace."""
        return self._inside.submit(work).result()

    def create(self, flow: Flow) -> None:
        """Have the kernel insert a flow; raises OSError."""
        self.run(lambda: _ask(ctnetlink.create_request(flow)))
        self._there.append(flow)

    def delete(self, flow: Flow) -> None:
        """Have the kernel delete it again; raises OSError."""
        self._there.remove(flow)
        self.run(lambda: _ask(ctnetlink.delete_request(flow)))

    def end(self) -> None:
        """Have the kernel delete all of them that are there; raises OSError."""
        for flow in list(self._there):
            self.delete(flow)

    def __enter__(self) -> OwnFlows:
        return self

    def __exit__(self, *_exception: object) -> None:
        try:
            self.end()
        finally:
            self._inside.shutdown()


def _enter() -> int:
    # Where there are no namespaces, or no more of them, the flows do no harm where we are
    with contextlib.suppress(OSError):
        unshare(CLONE_NEWNET)
    return os.stat("/proc/thread-self/ns/net").st_ino


def _ask(request: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, ctnetlink.NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.settimeout(_SECONDS)
        sock.sendto(request, (0, 0))
        error = ctnetlink.end_of_answer(sock.recv(1 << 16))
    if error:
        raise OSError(error, os.strerror(error))


class SelfTest:
    """Compares what becomes of the flows with what a map should say. Raises LoaderError.

    `live_fd`, `closed_fd` and `counters_fd` are the maps that the programs write.
    """

    def __init__(self, own: OwnFlows, live_fd: int, closed_fd: int, counters_fd: int) -> None:
        self._own = own
        self._live, self._closed, self._counters = live_fd, closed_fd, counters_fd

    def of_sync(self, portid: int, last_pass: int, function: str) -> None:
        """While the sync program is attached: one more dump, of FROM_BEFORE alone."""
        full = self._full()
        self._own.run(lambda: seed.drain_dump(portid))
        values = self._values(self._live, FROM_BEFORE)
        if self._full() > full:  # there is no room for it, which the counters tell everybody
            return
        seen = [value for value in values if value and value[GENERATION_OFFSET] == last_pass]
        if len(seen) != 2:
            raise _refusal("was not taken in", function)

    def of_programs(self, programs: Mapping[str, int], functions: Mapping[str, str]) -> None:
        """When they are attached: NEW comes and goes, and they run for it.

        `programs` are descriptors by role, `functions` what they sit on. Those of a former load may
        do the same work on the same maps: so the kernel also counts the runs.
        """
        full = self._full()
        with bpf.run_statistics() as counted:
            before = {role: bpf.prog_info(fd).run_cnt for role, fd in programs.items()}
            self._own.create(NEW)
            has_room = self._full() == full
            came = self._is_right(self._live) or not has_room
            self._own.delete(NEW)
            went = not any(self._values(self._live, NEW))
            closed = self._is_right(self._closed) or not has_room
            runs = {role: bpf.prog_info(fd).run_cnt for role, fd in programs.items()}
        self._forget()
        for role, well, event in (("insert", came, "came"), ("delete", went and closed, "went")):
            ran = [one for one in programs if one.startswith(role) and runs[one] > before[one]]
            if not well or (counted and not ran):
                name = next((functions[one] for one in functions if one.startswith(role)), role)
                raise _refusal(f"was not seen when it {event}", name)

    def _forget(self) -> None:
        """Leave nothing of the flows among the closed ones, where nobody will ask for them."""
        self._own.end()
        for flow in (FROM_BEFORE, NEW):
            for key in flow.keys(self._own.netns):
                bpf.map_delete(self._closed, key)

    def _full(self) -> int:
        return read_counters(self._counters)["live_full"]

    def _values(self, fd: int, flow: Flow) -> list[bytes | None]:
        return [bpf.map_lookup(fd, key, VALUE.size) for key in flow.keys(self._own.netns)]

    def _is_right(self, fd: int) -> bool:
        """Whether a map has both directions, each with the other one."""
        for value, other in zip(self._values(fd, NEW), (NEW.reply, NEW.orig)):
            if value is None or VALUE.unpack(value)[3:8] != tuple(other):
                return False
        return True


def _refusal(what: str, function: str) -> LoaderError:
    return LoaderError(
        f"a flow of the loader's own {what}: this kernel does not use {function} as it should; "
        "allow another tier (conntracker_tiers)"
    )
