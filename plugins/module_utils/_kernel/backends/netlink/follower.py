# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of the tier netlink: it follows conntrack events and writes the pinned maps.

It ends when another tier, or nothing, is loaded, or when another process has taken its place: a
follower that starts says so in the maps' pulse, and the former one sees that and goes. Both write
the same entries for that moment, which does no harm.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
from contextlib import closing
from itertools import chain, islice
from typing import Iterator, Mapping, NamedTuple

from ...bpf import bpf
from ...bpf.bpffs import FOLDER, RECORD, STAGED, Pins
from ...conntrack import namespaces, record_map
from ...conntrack.ctnetlink import COUNT, NEW, Message
from ...conntrack.layout import (
    CLOSED,
    COUNTERS_MAP,
    FLAG_SEEDED,
    FLAGS_OFFSET,
    GENERATION_OFFSET,
    LIVE,
    NETNS_ENDED,
    NETNS_KEY,
    NETNS_VALUE,
    SHAPES,
    is_stale,
)
from ...conntrack.namespaces import Namespace
from ...spec import Spec
from ..seed import next_pass
from . import descriptors, pulse
from .ct_watch import Overrun, Queries, Watch
from .flow_table import FlowTable, netns_of
from .pulse import Pulse

# Seconds
_TICK = 0.25
_LOOK_FOR_NAMESPACES = 1.0
# A look at all open files of the host as well, for namespaces that nothing else holds
_LOOK_AT_DESCRIPTORS = 60.0
# Between comparisons with the kernel's table: where all flows were announced, and where not
_COMPARE, _COMPARE_SOON = 60.0, 1.0
# Between looks at the kernel's numbers of flows: at the least, and per namespace
_COUNT, _COUNT_EACH = 1.0, 0.002
# The most of a CPU that comparisons, and looking for namespaces, may take
_SHARE = 0.02
# The least that is compared in a row
_COMPARE_FOR = 0.05
# When namespaces are due whose number of flows is not what it should be: before the others
_OFF = 1.0
# Datagrams of one namespace, or entries to close, before others have their turn
_TURN = 256
_COMPLAIN = 60.0

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class Staged(NamedTuple):
    """A load that is not active yet: its maps, and a pipe whose other end the loader closes when it
    has swapped, or given up. The descriptors belong to whoever follows.
    """

    record_id: int
    spec: Spec
    maps: Mapping[str, int]
    loader: int

    def descriptors(self) -> list[int]:
        """Return all of them."""
        return [*self.maps.values(), self.loader]

    def duplicate(self) -> Staged:
        """Return the same with descriptors of its own."""
        maps = {name: os.dup(fd) for name, fd in self.maps.items()}
        return self._replace(maps=maps, loader=os.dup(self.loader))


class Adopted:
    """What is followed, opened: `maps` has descriptors, which are its own from then on."""

    def __init__(self, record_id: int, spec: Spec, maps: Mapping[str, int]) -> None:
        self.record_id = record_id
        self._fds = list(maps.values())
        self.ended_fd, self.pulse_fd = maps[NETNS_ENDED], maps[pulse.PIN]
        try:
            live, closed, counters = (maps[name] for name in (LIVE, CLOSED, COUNTERS_MAP))
            self.table = FlowTable(live, closed, counters, spec.tcpv6_enabled, spec.udpv6_enabled)
        except BaseException:
            self.close()
            raise

    @classmethod
    def pinned(cls, pins: Pins, record_id: int, spec: Spec) -> Adopted:
        """Open what is pinned; raises FileNotFoundError."""
        maps: dict[str, int] = {}
        try:
            for name in (*SHAPES, pulse.PIN):
                fd = pins.open(name)
                if fd is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
                maps[name] = fd
        except BaseException:
            for fd in maps.values():
                os.close(fd)
            raise
        return cls(record_id, spec, maps)

    def close(self) -> None:
        """Lets go of the maps."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class Follower:
    """Follows until there is nothing to follow, or another one does."""

    def __init__(self, folder: str = FOLDER, staged: Staged | None = None) -> None:
        self._pins = Pins(folder)
        self._staged = staged
        self._owner = int.from_bytes(os.urandom(8), "little") | 1
        self._adopted: Adopted | None = None
        self._watches: dict[int, Watch] = {}
        # Namespaces that are there and not followed: inode to errno
        self._unreachable: dict[int, int] = {}
        self._most_watches = descriptors.raise_limit() - descriptors.RESERVE
        # Namespaces that are gone, and their entries that are still to be closed
        self._gone: set[int] = set()
        self._remains: Iterator[tuple[bytes, bytes]] = iter(())
        self._poll = select.epoll()
        self._generation = 0
        self._pulse = Pulse()
        self._taken_in = False
        self._next_look = self._next_beat = self._next_count = self._next_compare = 0.0
        # Whether a namespace may have been taken for gone that a descriptor holds
        self._in_doubt = True
        self._descriptors_due = 0.0
        # How long it took to go through the live entries
        self._walk_took = 0.0
        self._complained = 0.0
        # Tells at once when a namespace's mount goes; its sockets here would keep it alive
        self._mounts = open("/proc/self/mountinfo", "rb")  # noqa: SIM115 kept open
        self._poll.register(self._mounts.fileno(), select.EPOLLPRI | select.EPOLLERR)

    def run(self) -> None:
        """Returns when it is not needed any more."""
        try:
            while self._adopt():
                try:
                    self._round()
                except Superseded:
                    return
                except Reloaded:
                    continue
                except OSError as exc:  # of a map: what was missed is taken in with the next try
                    self._complain(f"a round failed ({exc.strerror}): trying again")
                    self._taken_in = False
                    time.sleep(_LOOK_FOR_NAMESPACES)
        finally:
            for inode in list(self._watches):
                self._leave(inode)
            if self._adopted is not None:
                self._adopted.close()
            self._mounts.close()
            self._poll.close()

    # --- what is loaded -----------------------------------------------------------------------

    def _adopt(self) -> bool:
        """Open what is loaded, where that is something else than before; False: nothing for us."""
        if self._staged is not None and self._adopted is None:
            self._begin(Adopted(self._staged.record_id, self._staged.spec, self._staged.maps))
        if self._adopted is not None and self._is_loaded():
            return True
        fd = self._pins.open(RECORD, bpf.RDONLY)
        if fd is None:
            return False
        with bpf.closing(fd):
            record_id, record = bpf.map_info(fd).id, record_map.read(fd)
        if record is None or not record_map.is_followed(record):
            return False
        try:
            adopted = Adopted.pinned(self._pins, record_id, Spec.from_dict(record["spec"]))
        except FileNotFoundError:  # unpinned meanwhile
            return False
        if self._adopted is not None:
            self._adopted.close()
            if pulse.read(adopted.pulse_fd).owner not in (0, self._owner):
                # That load has brought a process of its own
                adopted.close()
                self._adopted = None
                return False
        self._begin(adopted)
        return True

    def _begin(self, adopted: Adopted) -> None:
        self._adopted = adopted
        self._taken_in = False
        # The comparison closes what is left of namespaces that are gone
        self._gone, self._remains = set(), iter(())
        self._generation = next_pass(os.urandom(1)[0])
        # What a former process has counted goes on, and its sign of life is good for the moment
        former = pulse.read(adopted.pulse_fd)
        self._pulse = former._replace(owner=self._owner, pid=os.getpid())
        pulse.write(adopted.pulse_fd, self._pulse)
        self._next_look = 0.0

    def _is_loaded(self) -> bool:
        """Whether what is adopted is loaded still, or is about to be."""
        if self._staged is not None:
            loader = select.poll()
            loader.register(self._staged.loader, 0)
            if not loader.poll(0):
                return True
            os.close(self._staged.loader)
            self._staged = None
        # A set that is complete goes to its place, even if its loader was killed
        return any(self._is_record(name) for name in (RECORD, STAGED + RECORD))

    def _is_record(self, name: str) -> bool:
        fd = self._pins.open(name, bpf.RDONLY)
        if fd is None:
            return False
        with bpf.closing(fd):
            return bpf.map_info(fd).id == self._now_adopted.record_id

    @property
    def _now_adopted(self) -> Adopted:
        if self._adopted is None:
            raise Superseded
        return self._adopted

    def _beat(self) -> None:
        """Counters and the sign of life; raises Superseded where another follower has begun."""
        adopted = self._now_adopted
        if pulse.read(adopted.pulse_fd).owner != self._owner:
            raise Superseded
        adopted.table.save_counts()
        full = sum(code in _NO_DESCRIPTOR for code in self._unreachable.values())
        silent = [inode for inode, watch in self._watches.items() if watch.is_silent]
        self._pulse = self._pulse._replace(
            beat_ns=time.monotonic_ns() if self._taken_in else self._pulse.beat_ns,
            namespaces=len(self._watches),
            no_descriptor=full,
            no_entry=len(self._unreachable) - full,
            no_events=len(silent),
            unfollowed_inode=min(self._unreachable, default=0),
            silent_inode=min(silent, default=0),
        )
        pulse.write(adopted.pulse_fd, self._pulse)
        self._next_beat = time.monotonic() + _TICK

    def _breathe(self) -> None:
        """In the midst of long work: a sign of life, where one is due. Raises Reloaded where other
        maps wait for what happens now.
        """
        if time.monotonic() < self._next_beat:
            return
        if not self._is_loaded():
            raise Reloaded
        self._beat()

    def _count(self, **more: int) -> None:
        self._pulse = self._pulse._replace(
            **{name: getattr(self._pulse, name) + number for name, number in more.items()}
        )

    def _complain(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._complained:
            sys.stderr.write(f"btfleet: {text}\n")
            sys.stderr.flush()
            self._complained = now + _COMPLAIN

    # --- one round ----------------------------------------------------------------------------

    def _round(self) -> None:
        ready = self._wait(_TICK if self._taken_in and not self._gone else 0.0)
        if self._mounts.fileno() in ready or time.monotonic() >= self._next_look:
            self._look_for_namespaces()
        for watch in [one for one in self._watches.values() if one.fileno() in ready]:
            self._take_events(watch)
        self._close_remains()
        self._ask_counts()
        due = self._due()
        if due or not self._taken_in:
            self._compare(due if self._taken_in else list(self._watches.values()))
        self._beat()

    def _wait(self, seconds: float) -> set[int]:
        return {fd for fd, _event in self._poll.poll(seconds)}

    def _take_events(self, watch: Watch) -> None:
        try:
            self._apply(watch, watch.events(_TURN))
        except Overrun:
            self._count(overruns=1)
            self._complain(
                f"conntrack events of namespace {watch.inode} came faster than they are read: "
                "comparing with the kernel's table"
            )
            self._poll.unregister(watch.fileno())
            self._apply(watch, watch.renew())
            self._poll.register(watch.fileno(), select.EPOLLIN)
            watch.due = 0.0
        except OSError as exc:
            self._give_up(watch, exc)

    def _apply(self, watch: Watch, messages: Iterator[Message]) -> None:
        table, inode, count = self._now_adopted.table, watch.inode, 0
        try:
            for message in messages:
                if message.kind == COUNT:
                    if message.number is not None and watch.balance.is_off(message.number):
                        watch.due = min(watch.due, _OFF)
                    continue
                count += 1
                if message.kind == NEW:
                    table.insert(inode, message.flow)
                    watch.balance.saw(1)
                else:
                    table.delete(inode, message.flow)
                    watch.balance.saw(-1)
        finally:
            self._count(events=count)

    def _ask_counts(self) -> None:
        """Ask the namespaces that announce their flows for their number, now and then."""
        now = time.monotonic()
        if now < self._next_count or not self._taken_in:
            return
        for watch in self._watches.values():
            if not watch.is_silent:
                watch.ask_count()
        self._next_count = now + max(_COUNT, _COUNT_EACH * len(self._watches))

    # --- namespaces ---------------------------------------------------------------------------

    def _look_for_namespaces(self) -> None:
        begin = time.monotonic()
        found = self._find_namespaces(begin)
        gone = set(self._watches) - set(found)
        ended = NETNS_VALUE.pack(time.monotonic_ns())
        for inode in gone:
            self._leave(inode)
            bpf.map_update(self._now_adopted.ended_fd, NETNS_KEY.pack(inode), ended)
        if gone:
            self._gone |= gone
            self._remains = chain(self._remains, self._entries_of(gone))
        self._unreachable = {}
        for inode, namespace in found.items():
            # A new one may have the number of one that is gone: not before that one's entries are
            if inode not in self._watches and inode not in self._gone:
                self._enter(namespace)
        now = time.monotonic()
        self._next_look = now + max(_LOOK_FOR_NAMESPACES, (now - begin) / _SHARE)

    def _find_namespaces(self, now: float) -> dict[int, Namespace]:
        """Return all namespaces. Those that open descriptors alone hold are found now and then, and
        soon after another kind of holder has gone; seldom on a host with very many files.
        """
        found = namespaces.find(descriptors=False)
        self._in_doubt |= bool(self._watches.keys() - found.keys())
        if now >= self._descriptors_due + (0 if self._in_doubt else _LOOK_AT_DESCRIPTORS):
            found = namespaces.find()
            self._in_doubt = False
            end = time.monotonic()
            self._descriptors_due = end + (end - now) / _SHARE
        return found

    def _enter(self, namespace: Namespace) -> None:
        try:
            if len(self._watches) >= self._most_watches:
                raise OSError(errno.EMFILE, "no file descriptor is left for it")
            watch = Watch(namespace)
        except namespaces.Gone:
            return
        except OSError as exc:
            self._unreachable[namespace.inode] = exc.errno or 0
            self._complain(f"cannot follow network namespace {namespace.inode} ({exc.strerror})")
            return
        self._watches[namespace.inode] = watch
        self._poll.register(watch.fileno(), select.EPOLLIN)

    def _leave(self, inode: int) -> None:
        watch = self._watches.pop(inode)
        self._poll.unregister(watch.fileno())
        watch.close()

    def _give_up(self, watch: Watch, exc: OSError) -> None:
        """It is entered anew, with all that belongs to it, if it is still there."""
        self._complain(f"cannot read network namespace {watch.inode} ({exc.strerror})")
        self._leave(watch.inode)

    def _entries_of(self, gone: set[int]) -> Iterator[tuple[bytes, bytes]]:
        entries = self._now_adopted.table.entries()
        return (entry for entry in entries if netns_of(entry[0]) in gone)

    def _close_remains(self) -> None:
        """Some entries of namespaces that are gone: events of the others do not wait for all."""
        if not self._gone:
            return
        table, count = self._now_adopted.table, 0
        for key, value in islice(self._remains, _TURN):
            table.close(key, value)
            count += 1
        if count < _TURN:
            self._gone = set()
            self._next_look = 0.0

    # --- comparing with the kernel's table ----------------------------------------------------

    def _due(self) -> list[Watch]:
        """Namespaces to compare now, most urgent first."""
        now = time.monotonic()
        limit = now if now >= self._next_compare else 0.0
        return sorted(
            (watch for watch in self._watches.values() if watch.due <= limit),
            key=lambda watch: watch.due,
        )

    def _compare(self, due: list[Watch]) -> None:
        """Takes in what is in the kernel's table, and closes what is not any more.

        Events wait meanwhile: whatever they say is younger than what the dump says.
        """
        begin, start_ns = time.monotonic(), time.monotonic_ns()
        self._generation = next_pass(self._generation)
        seen, found = {}, set()
        for watch in due:
            late = time.monotonic() - begin > max(_COMPARE_FOR, self._walk_took)
            if late and watch.due and self._taken_in:
                break  # the rest has its turn later
            try:
                if self._see_all(watch):
                    found.add(watch.inode)
            except OSError as exc:
                self._give_up(watch, exc)
                continue
            watch.unannounced = 0
            seen[watch.inode] = watch
        walk = time.monotonic()
        with closing(Queries()) as queries:
            found |= self._close_stale(seen, start_ns, queries)
        self._count(comparisons=len(seen))
        now = time.monotonic()
        self._walk_took = now - walk
        if self._taken_in:  # the first one has to be done, however long it takes
            self._next_compare = now + (now - begin) / _SHARE
        for watch in seen.values():
            has_more = watch.unannounced or watch.is_silent or watch.inode in found
            watch.due = now + (_COMPARE_SOON if has_more else _COMPARE)
            watch.balance.was_compared(watch.inode in found)
        self._taken_in = True

    def _see_all(self, watch: Watch) -> bool:
        """Whether there were flows that no event had announced."""
        table = self._now_adopted.table
        before = table.counts["seeded"]
        with closing(watch.query()) as query:
            for number, flow in enumerate(query.dump()):
                table.see(watch.inode, flow, self._generation)
                if number % _TURN == 0:
                    self._breathe()
        if not watch.is_silent:
            watch.ask_count()  # what the balance begins with
        return table.counts["seeded"] != before

    def _close_stale(self, seen: dict[int, Watch], start_ns: int, queries: Queries) -> set[int]:
        """Close the entries of flows that have ended; return the namespaces that had some."""
        table, repaired, found = self._now_adopted.table, 0, set()
        for number, (key, value) in enumerate(table.entries()):
            if number % _TURN == 0:
                self._breathe()
            inode = netns_of(key)
            watch = seen.get(inode)
            if watch is None:
                # Of a namespace that is gone, and not known to be
                if inode not in self._watches and inode not in self._gone:
                    repaired += table.close(key, value)
            elif value[GENERATION_OFFSET] == self._generation:
                watch.unannounced += bool(value[FLAGS_OFFSET] & FLAG_SEEDED)
            elif is_stale(value, self._generation, start_ns) and self._close_if_gone(
                watch, queries, key, value
            ):
                repaired += 1
                found.add(inode)
        self._count(repaired=repaired)
        return found

    def _close_if_gone(self, watch: Watch, queries: Queries, key: bytes, value: bytes) -> bool:
        """A dump may pass over a flow while the table is resized: so it is asked for by itself."""
        table = self._now_adopted.table
        try:
            flow = queries.of(watch).find(key)
        except OSError:
            return False  # the next comparison will tell
        if flow is not None and table.is_wanted(flow) and key in flow.keys(watch.inode):
            table.see(watch.inode, flow, self._generation)
            return False
        return table.close(key, value)


class Superseded(Exception):
    """Another process follows."""


class Reloaded(Exception):
    """Something else is loaded than what is followed."""
