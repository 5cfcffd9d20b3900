# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the table by the object's programs, whose links the kernel keeps by their pins."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack

from ..bpf import bpf, object_file
from ..bpf.bpffs import RECORD
from ..bpf.libbpf import BpfObject, Libbpf
from ..btf import archive, needed_types
from ..conntrack import reading, record_map
from ..conntrack.layout import CLOSED, COUNTERS_MAP, HAS_CLOSED, LIVE, SHAPES, read_counters
from ..conntrack.record_map import is_followed
from ..errors import BtfNotFound, LoaderError
from ..host.facts import NO, YES, Facts, of_headers
from ..host.modules import MODULE, NETLINK_MODULE, module_number, module_state
from ..spec import RUNTIME, Spec
from . import attach, seed, selftest
from .base import Backend, Request, former_maps, keep_links_of, kept_maps

# How whole maps are read and copied, as the record has it
BY_ITERATORS, BY_CALLS = "iterators", "map calls"

ITERATOR_PROGRAMS = ["iter_entries", "iter_stale", "iter_copy"]
PROGRAMS = [*attach.PROGRAMS, *ITERATOR_PROGRAMS]


class Programs(Backend):
    """The new programs run beside the former ones until the swap, on the same maps where they fit:
    writing an entry twice does no harm.
    """

    def __init__(self, request: Request, content: bytes) -> None:
        super().__init__(request)
        name = f"the object {request.spec.object_sha256[:12]}"
        self._file = object_file.parse(content, name)
        self._facts = request.facts
        self._probes = attach.probes_of(
            str(request.verdict.tier), request.verdict.functions, request.facts.symbols
        )
        has_kprobes = request.facts.probes["kprobe_events"].value != NO
        self._seeding = attach.SEED if has_kprobes else attach.SEED_WITHOUT_KPROBES
        self._has_iterators = request.facts.probes["map_iterators"].value == YES
        self._portid = seed.random_portid()
        self._replaced: dict[str, int] = {}
        self.links: dict[str, int] = {}
        self._last_pass = 0
        self._copied_ns = 0

    def prepare(self) -> None:
        lib = Libbpf()
        types = _types_file(self._facts, self.request.spec, self.stack)
        if self.request.verdict.tier == RUNTIME:
            btf, made = of_headers(lib)
            self._facts = dataclasses.replace(self._facts, btf=btf)
            types = self.stack.enter_context(archive.as_file(made))
        self._object = self.stack.enter_context(BpfObject(lib, self._file.content, types))
        self._object.select(
            [*(probe.program for probe in self._probes), self._seeding.program]
            + (ITERATOR_PROGRAMS if self._has_iterators else []),
            PROGRAMS,
        )
        self._object.set_rodata(
            self._file.with_constants(
                {
                    "seed_portid": self._portid,
                    "tcpv6_enabled": self.request.spec.tcpv6_enabled,
                    "udpv6_enabled": self.request.spec.udpv6_enabled,
                }
            )
        )
        self._prepare_maps()
        self._maps = _map_work(self._object, self._has_iterators)
        # A follower's entries have other cookies, and the initial sync finds all that lives
        if LIVE in self._replaced and not is_followed(self.request.former):
            self._maps.copy(self._replaced[LIVE], self._object.map_fd(LIVE))

    def _prepare_maps(self) -> None:
        """Load the object on the maps so far, or on new ones."""
        self._object.set_max_entries(LIVE, self.request.spec.max_entries)
        self._object.set_max_entries(CLOSED, self.request.spec.closed_entries)
        former = former_maps(self.request, self.stack)
        kept = kept_maps(self.request, former)
        for name, fd in former.items():
            if name in kept:
                self._object.reuse_map(name, fd)
            elif name in (LIVE, CLOSED):
                self._replaced[name] = fd
        self._object.load()
        self._closes_first = CLOSED not in former
        self._set_has_closed(True)

    def attach(self) -> None:
        symbols = self._facts.symbols
        maps = [self._object.map_fd(name) for name in (LIVE, CLOSED, COUNTERS_MAP)]
        own = self.stack.enter_context(selftest.OwnFlows())
        self._test = selftest.SelfTest(own, *maps)
        own.create(selftest.FROM_BEFORE)
        self.links = {probe.pin: probe.attach(self._object, symbols) for probe in self._probes}

    def sync(self) -> None:
        live = self._object.map_fd(LIVE)
        self._seeding.attach(self._object, self._facts.symbols)
        try:
            former = self.request.last_pass
            self._last_pass = seed.take_in(live, self._maps, self._portid, former, self._sync_hits)
            function = str(self._facts.symbols[self._seeding.function])
            self._test.of_sync(self._portid, self._last_pass, function)
        finally:
            self._object.detach(self._seeding.program)
        self._test.of_programs(
            {one.role: self._object.program_fd(one.program) for one in self._probes},
            {one.role: str(self._facts.symbols[one.function]) for one in self._probes},
        )
        if self._closes_first:
            # Only our own flows have been closed, unless an entry is there after the reset
            self._set_has_closed(False)
            if next(bpf.map_entries(self._object.map_fd(CLOSED)), None):
                self._set_has_closed(True)
        self._copied_ns = time.monotonic_ns()
        if CLOSED in self._replaced:
            # Not earlier: a flow deleted before the sync may be in the former map alone
            self._maps.copy(self._replaced[CLOSED], self._object.map_fd(CLOSED))

    def _set_has_closed(self, value: bool) -> None:
        bpf.map_update(self._object.map_fd(".bss"), bytes(4), HAS_CLOSED.pack(value))

    def _sync_hits(self) -> int:
        return read_counters(self._object.map_fd(COUNTERS_MAP))["seed_hits"]

    def pinned(self) -> dict[str, int]:
        if self._has_iterators:
            self.links.update(_bind_iterators(self._object, self.stack))
        self.record.update(self._make_record())
        record_fd = self.stack.enter_context(bpf.closing(record_map.make(self.record)))
        maps = {name: self._object.map_fd(name) for name in SHAPES}
        return {**self.links, **maps, RECORD: record_fd}

    def keep(self) -> None:
        self._object.keep()

    def settle(self) -> None:
        keep_links_of(self.record, self.request.holder_path)
        try:
            self.await_former_gone()
        finally:
            if CLOSED in self._replaced:
                # And once more: until it was gone, the former delete program moved flows there too
                closed = self._object.map_fd(CLOSED)
                self._maps.copy(self._replaced[CLOSED], closed, self._copied_ns)

    def _make_record(self) -> dict[str, object]:
        obj, facts = self._object, self._facts
        programs = {one.role: bpf.prog_info(obj.program_fd(one.program)) for one in self._probes}
        if self._has_iterators:
            programs["entries"] = bpf.prog_info(obj.program_fd("iter_entries"))
        return {
            "fingerprint": self.request.spec.fingerprint,
            "spec": self.request.spec.to_dict(),
            "tier": self.request.verdict.tier,
            "lifecycle": self.request.verdict.lifecycle,
            "btf_source": facts.btf.source,
            "btf_result": facts.btf.result,
            "reads": BY_ITERATORS if self._has_iterators else BY_CALLS,
            "kernel": facts.kernel,
            # kprobes end with their module, and their links do not tell
            "module": module_number(MODULE),
            # Which function each program sits on, as this kernel calls it
            "functions": {one.role: facts.symbols.get(one.function) for one in self._probes},
            "programs": {name: info.id for name, info in programs.items()},
            "tags": {name: info.tag for name, info in programs.items()},
            "links": {name: bpf.link_info(fd).id for name, fd in self.links.items()},
            "maps": {name: bpf.map_info(obj.map_fd(name)).id for name in SHAPES},
            "loaded_at": int(time.time()),
            "last_pass": self._last_pass,
        }


def load_modules() -> None:
    """Have the kernel load its conntrack modules; raises LoaderError if it cannot.

    They are needed before the load: a module's functions are not there to attach to otherwise.
    A request to conntrack netlink is enough, because the kernel loads what it needs to answer.
    """
    states = {name: module_state(name) for name in (MODULE, NETLINK_MODULE)}
    if "available" not in states.values():
        return
    try:
        seed.drain_dump(seed.random_portid())
    except OSError as exc:
        raise LoaderError(
            f"the kernel does not answer for conntrack ({exc.strerror}): "
            f"`modprobe {NETLINK_MODULE}` says why"
        ) from None
    for name in states:
        if module_state(name) == "available":
            raise LoaderError(
                f"the kernel module {name} is there but not loaded: `modprobe {name}` says why"
            )


def _types_file(facts: Facts, spec: Spec, stack: ExitStack) -> str | None:
    """Return the file that libbpf takes the kernel's types from, None for the kernel itself."""
    if facts.btf.rewritten:
        return stack.enter_context(archive.as_file(needed_types.of_kernel(MODULE)))
    if facts.btf.source != "archive":
        return spec.btf_path
    found = archive.find(archive.running())
    if found is None:
        raise BtfNotFound(f"{archive.PATH} was changed while it was looked at: load again")
    return stack.enter_context(archive.as_file(found[1]))


def _map_work(obj: BpfObject, has_iterators: bool) -> seed.MapCalls:
    def tell(load: bytes) -> None:
        bpf.map_update(obj.map_fd(".data"), bytes(4), load)

    if not has_iterators:
        return seed.MapCalls(tell)
    return seed.MapIterators(tell, obj.program_fd("iter_stale"), obj.program_fd("iter_copy"))


def _bind_iterators(obj: BpfObject, stack: ExitStack) -> dict[str, int]:
    """Return links of the iterators that stay: pin name to descriptor."""
    links = {}
    for map_name, pin in reading.ENTRIES.items():
        link = bpf.iterator_link(obj.program_fd("iter_entries"), obj.map_fd(map_name))
        links[pin] = stack.enter_context(bpf.closing(link))
    return links
