# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracker in the kernel: reading back what is loaded, loading a spec, unloading.

Order of a load: everything that can be refused is refused first; then the new programs run
beside the old ones on the same maps (writing an entry twice does no harm); then the pins are
swapped; then the old programs go. So there is no moment without a tracker, and whatever fails
before the swap leaves the old one as it was.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Iterator, Mapping

from ..backends import attach, held_links, holder, keeper_unit, seed
from ..backends.netlink import follower_process, netlink_tier, pulse
from ..bpf import bpf, object_file
from ..bpf.bpffs import FOLDER, RECORD, Pins, check_mounted
from ..bpf.libbpf import BpfObject, Libbpf
from ..btf import archive, needed_types
from ..conntrack import reading, record_map
from ..conntrack.layout import CLOSED, LIVE, NETNS_ENDED, SHAPES
from ..conntrack.record_map import is_followed
from ..errors import BtfNotFound, LoaderError, TrackerError
from ..host.facts import (
    NO,
    YES,
    Facts,
    gather,
    of_headers,
)
from ..host.modules import MODULE, NETLINK_MODULE, module_number, module_state
from ..host.support import HELD, Verdict, assess, hint
from ..spec import NETLINK, RUNTIME, Spec
from ..store import Store
from . import memory, telemetry
from .state import Active, Loaded

LOCK = "/run/btfleet/loader.lock"
ASSET = "conntrack"

# How whole maps are read and copied, as the record has it
BY_ITERATORS, BY_CALLS = "iterators", "map calls"

ITERATOR_PROGRAMS = ["iter_dump", "iter_entries", "iter_stale", "iter_copy"]
PROGRAMS = [*attach.PROGRAMS, *ITERATOR_PROGRAMS]


@dataclass(frozen=True)
class Outcome:
    """A load's result: whether anything was changed, the record, and the verdict if one was
    needed. `new_keeper` says that a process had to be started to follow conntrack events or to hold
    the links.
    """

    changed: bool
    record: dict[str, object]
    verdict: Verdict | None = None
    new_keeper: bool = False


@dataclass
class Tracker:
    """The tracker of this host. The paths are fixed but for tests.

    `stays` says that this process stays: where one has to follow conntrack events or to hold links
    that cannot be pinned, it does (as `own_follower` or `own_holder` from then on) rather than one
    that is started for it.
    """

    store: Store = field(default_factory=Store)
    folder: str = FOLDER
    lock_path: str = LOCK
    holder_path: str = held_links.SOCKET
    stays: bool = False
    own_follower: follower_process.OwnThread | None = field(default=None, init=False)
    own_holder: holder.Holder | None = field(default=None, init=False)

    @property
    def pins(self) -> Pins:
        """The pins of the tracker in force."""
        return Pins(self.folder, RECORD)

    @property
    def active(self) -> Active:
        """What is active on this host, for reading."""
        return Active(self.folder, self.holder_path)

    def read(self) -> Loaded:
        """Compare the record with the kernel (see `state.Active`)."""
        return self.active.read()

    def hold_links(self) -> holder.Holder:
        """Sees to it that this process holds the links, whichever does so far."""
        with self._locked():
            if self.own_holder is None:
                self.own_holder = holder.take_over(self.holder_path)
                self.own_holder.start()
            return self.own_holder

    def require_bpffs(self) -> None:
        """Raises LoaderError where nothing can be pinned."""
        check_mounted(os.path.dirname(self.folder))

    # --- loading ---------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(os.path.dirname(self.lock_path), mode=0o755, exist_ok=True)
        with open(self.lock_path, "w", encoding="ascii") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def load(self, spec: Spec) -> Outcome:
        """Brings the kernel to `spec`, with the object from the store; counts the result.

        Raises a TrackerError whose result says at which step it failed; what ran before runs on.
        """
        with self._locked():
            outcome = self._load_and_count(spec)
        if outcome.new_keeper:
            keeper_unit.hand_over()
        return outcome

    def follow(self) -> follower_process.OwnThread:
        """Has this process follow conntrack events, whichever does so far."""
        if self.own_follower is None:
            self.own_follower = follower_process.OwnThread(self.folder)
        return self.own_follower

    def _load_and_count(self, spec: Spec) -> Outcome:
        self.require_bpffs()
        self.pins.recover()
        before = self.read()
        if before.record and before.fingerprint == spec.fingerprint and not before.drift:
            self._settle_holder(before.record)
            return Outcome(False, before.record)
        try:
            outcome = self._load(spec, before)
        except TrackerError as exc:
            telemetry.count(self.store, ASSET, exc.result or "loader")
            self._settle_holder(before.record)
            raise
        except OSError as exc:
            telemetry.count(self.store, ASSET, "loader")
            self._settle_holder(before.record)
            raise LoaderError(
                f"the kernel refused a step of the load ({exc.strerror}): "
                "the tracker that ran before keeps running"
            ) from exc
        telemetry.count(self.store, ASSET, str(outcome.record["btf_result"]))
        return outcome

    def check(self, spec: Spec) -> Verdict:
        """What a load would be refused for before it touches the kernel, as the same errors."""
        self.require_bpffs()
        verdict = _require(gather(spec.btf_path), spec)
        self._require_memory(spec, self.read(), verdict)
        return verdict

    def _require_memory(self, spec: Spec, before: Loaded, verdict: Verdict) -> None:
        old = self._old_maps(before)
        try:
            kept = _kept(old, spec, before, verdict.tier == NETLINK)
        finally:
            for fd in old.values():
                os.close(fd)
        memory.require(spec, kept)

    def _load(self, spec: Spec, before: Loaded) -> Outcome:
        content = self.store.read_object(spec.object_sha256)
        parsed = object_file.parse(content, f"the object {spec.object_sha256[:12]}")
        load_modules()
        facts = gather(spec.btf_path)
        verdict = _require(facts, spec)
        self._require_memory(spec, before, verdict)
        if verdict.tier == NETLINK:
            return self._load_netlink(spec, before, facts, verdict)
        probes = attach.probes_of(str(verdict.tier), verdict.functions, facts.symbols)
        has_kprobes = facts.probes["kprobe_events"].value != NO
        seeding = attach.SEED if has_kprobes else attach.SEED_WITHOUT_KPROBES
        # Before anything is opened here, which it would have open too
        new_keeper = verdict.lifecycle == HELD and self._start_holder()
        portid = seed.random_portid()
        with ExitStack() as stack:
            lib = Libbpf()
            types = _types_file(facts, spec, stack)
            if verdict.tier == RUNTIME:
                btf, made = of_headers(lib)
                facts = dataclasses.replace(facts, btf=btf)
                types = stack.enter_context(archive.as_file(made))
            obj = stack.enter_context(BpfObject(lib, content, types))
            has_iterators = facts.probes["map_iterators"].value == YES
            obj.select(
                [*(probe.program for probe in probes), seeding.program]
                + (ITERATOR_PROGRAMS if has_iterators else []),
                PROGRAMS,
            )
            obj.set_rodata(
                parsed.with_constants(
                    {
                        "seed_portid": portid,
                        "tcpv6_enabled": spec.tcpv6_enabled,
                        "udpv6_enabled": spec.udpv6_enabled,
                    }
                )
            )
            others = self._prepare_maps(obj, spec, before, stack)
            maps = _map_work(obj, has_iterators)
            # A follower's entries have other cookies, and the take-in finds all that lives
            if LIVE in others and not is_followed(before.record):
                maps.copy(others[LIVE], obj.map_fd(LIVE))
            links = {probe.pin: probe.attach(obj, facts.symbols) for probe in probes}
            seeding.attach(obj, facts.symbols)
            try:
                last_pass = seed.take_in(obj.map_fd(LIVE), maps, portid, _last_pass(before))
            finally:
                obj.detach(seeding.program)
            copied_ns = time.monotonic_ns()
            if CLOSED in others:
                # Not earlier: a flow deleted before the take-in may be in the old map alone
                maps.copy(others[CLOSED], obj.map_fd(CLOSED))
            token = None
            if verdict.lifecycle == HELD:
                token = os.urandom(8).hex()
                holder.hold(token, links, self.holder_path)
                links = {}
            if has_iterators:
                links.update(_bind_iterators(obj, stack))
            record = _make_record(spec, verdict, facts, obj, probes, links, last_pass)
            if token:
                record["held"] = token
            record_fd = stack.enter_context(bpf.closing(record_map.make(record)))
            pinned_maps = {name: obj.map_fd(name) for name in SHAPES}
            self.pins.replace({**links, **pinned_maps, RECORD: record_fd})
            obj.keep()
            self._settle_holder(record)
            if CLOSED in others:
                # And once more: until it was gone, the old delete program moved flows there too
                self._wait_gone(before, Loaded(record))
                maps.copy(others[CLOSED], obj.map_fd(CLOSED), copied_ns)
        after = self.read()
        if after.fingerprint != spec.fingerprint or after.drift:
            raise LoaderError(
                "the tracker does not read back as it was loaded "
                f"({'; '.join(after.drift) or 'another record'}): load it again"
            )
        self._wait_gone(before, after)
        return Outcome(True, record, verdict, new_keeper)

    def _start_holder(self) -> bool:
        """Sees to it that somebody holds links; says whether a process had to be started."""
        if held_links.look(self.holder_path) is not None:
            return False
        if self.stays:
            self.own_holder = holder.Holder(self.holder_path)
            self.own_holder.start()
            return False
        holder.start(self.holder_path)
        return True

    def _settle_holder(self, record: dict[str, object] | None) -> None:
        """Has the links of all other loads let go."""
        held = held_links.look(self.holder_path)
        token = record.get("held") if record else None
        if held is not None and (token is None or set(held.sets) - {token}):
            holder.keep(str(token) if token else None, self.holder_path)

    def _load_netlink(self, spec: Spec, before: Loaded, facts: Facts, verdict: Verdict) -> Outcome:
        """No programs: the same maps, and a process that writes them. The tracker so far goes only
        when that is done, but its maps are not the ones that are read from the moment of the swap.
        """
        former = self.active.read_pulse()
        has_follower = self.stays or (former is not None and former.is_alive())
        with ExitStack() as stack:
            old = self._old_maps(before)
            for fd in old.values():
                stack.callback(os.close, fd)
            fitting = _kept(old, spec, before, is_netlink=True)
            made, replaced = netlink_tier.prepare_maps(spec, old, fitting, stack)
            record = netlink_tier.make_record(spec, verdict, facts, made)
            record_fd = stack.enter_context(bpf.closing(record_map.make(record)))
            pulse_fd = stack.enter_context(bpf.closing(pulse.make_map()))
            self.pins.replace({**made, pulse.PIN: pulse_fd, RECORD: record_fd})
            if self.stays:
                self.follow()
            started = follower_process.ensure(self.folder, self.active.read_pulse, has_follower)
            self._settle_holder(None)
            self._wait_gone(before, Loaded(record))
            if CLOSED in replaced:
                # And once more: until now, flows were moved there too
                seed.MapCalls().copy(replaced[CLOSED], made[CLOSED])
        after = self.read()
        if after.fingerprint != spec.fingerprint or after.drift:
            raise LoaderError(
                "the tracker does not read back as it was loaded "
                f"({'; '.join(after.drift) or 'another record'}): load it again"
            )
        return Outcome(True, record, verdict, started)

    def _prepare_maps(
        self, obj: BpfObject, spec: Spec, before: Loaded, stack: ExitStack
    ) -> dict[str, int]:
        """Loads the object on the maps so far, or on new ones; returns those that it replaces.

        A new map of closed flows needs a new one of live flows too: on the one that it has, the new
        delete program would move flows to where nobody finds them should this load not be ended.
        """
        obj.set_max_entries(LIVE, spec.max_entries)
        obj.set_max_entries(CLOSED, spec.closed_entries)
        others = {}
        old = self._old_maps(before)
        fitting = _kept(old, spec, before, is_netlink=False)
        for name, fd in old.items():
            stack.callback(os.close, fd)
            if name in fitting:
                obj.reuse_map(name, fd)
            elif name in (LIVE, CLOSED):
                others[name] = fd
        obj.load()
        return others

    def _old_maps(self, before: Loaded) -> dict[str, int]:
        """Descriptors of the maps of the tracker so far, from pins, else by the record's ids."""
        found = {}
        ids = record_map.numbers(before.record, "maps")
        for name in SHAPES:
            fd = self.pins.open(name)
            if fd is None and name in ids:
                try:
                    fd = bpf.fd_by_id(bpf.MAP_GET_FD_BY_ID, ids[name])
                except OSError:
                    continue
            if fd is None:
                continue
            info = bpf.map_info(fd)
            if (info.type, info.key_size, info.value_size) == SHAPES[name]:
                found[name] = fd
            else:
                os.close(fd)
        return found

    # --- unloading -------------------------------------------------------------------------------

    def unload(self) -> bool:
        """Takes the tracker out of the kernel; says whether there was one."""
        if not self.pins.names() and self.active.holding_process() is None:
            return False
        with self._locked():
            before, follower = self.read(), self.active.read_pulse()
            self.pins.remove()
            self._settle_holder(None)
            self._wait_gone(before, Loaded())
            follower_process.await_end(follower)
            return True

    def forget_lock(self) -> None:
        """Removes lock file and socket, for a host that is to keep nothing of ours."""
        holder.forget(self.holder_path)
        try:
            os.unlink(self.lock_path)
            os.rmdir(os.path.dirname(self.lock_path))
        except OSError:  # not there, or somebody else's files beside it
            return

    def _wait_gone(self, before: Loaded, after: Loaded) -> None:
        """Waits until the kernel has detached the former probes: unpinning does not wait for it."""
        still = record_map.probe_links(before.record) - record_map.probe_links(after.record)
        deadline = time.monotonic() + 10
        while still and time.monotonic() < deadline:
            still = {link_id for link_id in still if _link_exists(link_id)}
            if still:
                time.sleep(0.01)
        if still:
            raise LoaderError(
                f"link {min(still)} of the former tracker is still attached after 10 s: another "
                "process holds it (`bpftool link` names it)"
            )


def _require(facts: Facts, spec: Spec) -> Verdict:
    verdict = assess(facts, spec.tiers, spec.allow_fentry_deadlock)
    if verdict.tier == NETLINK:
        return verdict
    if facts.probes["libbpf"].value == NO:
        raise LoaderError(facts.probes["libbpf"].evidence)
    if facts.probes["btf"].value == NO and verdict.tier != RUNTIME:
        raise BtfNotFound(facts.probes["btf"].evidence)
    if not verdict.supported:
        more = "; ".join(filter(None, (verdict.summary, hint(facts, verdict))))
        raise LoaderError(f"this host cannot run the object: {more}")
    return verdict


def _types_file(facts: Facts, spec: Spec, stack: ExitStack) -> str | None:
    """The file that libbpf is to take the kernel's types from, None for the kernel itself."""
    if facts.btf.rewritten:
        return stack.enter_context(archive.as_file(needed_types.of_kernel(MODULE)))
    if facts.btf.source != "archive":
        return spec.btf_path
    found = archive.find(archive.running())
    if found is None:
        raise BtfNotFound(f"{archive.PATH} was changed while it was looked at: load again")
    return stack.enter_context(archive.as_file(found[1]))


def load_modules() -> None:
    """Has the kernel load its conntrack modules; raises LoaderError if it cannot.

    They are needed before the load: a module's functions are not there to attach to otherwise.
    A request to conntrack netlink is enough, since the kernel loads what it needs to answer.
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


def _kept(old: Mapping[str, int], spec: Spec, before: Loaded, is_netlink: bool) -> set[str]:
    """Which maps so far (descriptors by name) a load of `spec` goes on using."""
    wanted = memory.sizes(spec)
    kept = {name for name, fd in old.items() if bpf.map_info(fd).max_entries == wanted[name]}
    if is_followed(before.record) != is_netlink:
        # Cookies differ, and a follower writes to its maps until it sees that it is over
        return kept & {NETNS_ENDED}
    if CLOSED not in kept and not is_netlink:
        kept.discard(LIVE)  # see `_prepare_maps`
    return kept


def _last_pass(before: Loaded) -> int:
    """The number of the last pass that was made over the live map so far."""
    last = (before.record or {}).get("last_pass", 0)
    return last if isinstance(last, int) else 0


def _map_work(obj: BpfObject, has_iterators: bool) -> seed.MapCalls:
    def tell(load: bytes) -> None:
        bpf.map_update(obj.map_fd(".data"), bytes(4), load)

    if not has_iterators:
        return seed.MapCalls(tell)
    return seed.MapIterators(tell, obj.program_fd("iter_stale"), obj.program_fd("iter_copy"))


def _bind_iterators(obj: BpfObject, stack: ExitStack) -> dict[str, int]:
    """Links of the iterators that stay: pin name to descriptor."""
    links = {}
    for program, pins in (("iter_dump", reading.DUMPS), ("iter_entries", reading.ENTRIES)):
        for map_name, pin in pins.items():
            link = bpf.iterator_link(obj.program_fd(program), obj.map_fd(map_name))
            links[pin] = stack.enter_context(bpf.closing(link))
    return links


def _make_record(
    spec: Spec,
    verdict: Verdict,
    facts: Facts,
    obj: BpfObject,
    probes: tuple[attach.Probe, ...],
    links: dict[str, int],
    last_pass: int,
) -> dict[str, object]:
    programs = {probe.role: bpf.prog_info(obj.program_fd(probe.program)) for probe in probes}
    has_iterators = not record_map.ITERATORS.keys().isdisjoint(links)
    if has_iterators:
        programs["dump"] = bpf.prog_info(obj.program_fd("iter_dump"))
        programs["entries"] = bpf.prog_info(obj.program_fd("iter_entries"))
    return {
        "fingerprint": spec.fingerprint,
        "spec": spec.to_dict(),
        "tier": verdict.tier,
        "lifecycle": verdict.lifecycle,
        "btf_source": facts.btf.source,
        "btf_result": facts.btf.result,
        "reads": BY_ITERATORS if has_iterators else BY_CALLS,
        "kernel": facts.kernel,
        # kprobes end with their module, and their links do not tell
        "module": module_number(MODULE),
        # Which function each program sits on, as this kernel calls it
        "functions": {probe.role: facts.symbols.get(probe.function) for probe in probes},
        "programs": {name: info.id for name, info in programs.items()},
        "tags": {name: info.tag for name, info in programs.items()},
        "links": {name: bpf.link_info(fd).id for name, fd in links.items()},
        "maps": {name: bpf.map_info(obj.map_fd(name)).id for name in SHAPES},
        "loaded_at": int(time.time()),
        "last_pass": last_pass,
    }


def _link_exists(link_id: int) -> bool:
    try:
        os.close(bpf.fd_by_id(bpf.LINK_GET_FD_BY_ID, link_id))
    except OSError as exc:
        return exc.errno != errno.ENOENT
    return True
