# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracker in the kernel: loading a spec, and unloading.

The order of a load: everything that can be refused is refused first; then the new tracker runs
beside the former one; then the pins are swapped; then the former one goes. So there is no moment
without a tracker. What fails before the swap leaves the former tracker active, what fails after it
the new one, and the message says which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from dataclasses import dataclass, field

from ..backends import held_links, holder, keeper_unit, seed
from ..backends.base import (
    Backend,
    Request,
    await_gone,
    former_maps,
    keep_links_of,
    kept_maps,
)
from ..backends.held_programs import HeldPrograms
from ..backends.netlink import follower_process
from ..backends.netlink.netlink_tier import Netlink
from ..backends.programs import Programs, load_modules
from ..backends.reconciling import Reconciling
from ..bpf.bpffs import FOLDER, RECORD, Pins, check_mounted
from ..conntrack import record_map
from ..errors import BtfNotFound, LoaderError, LoadUnfinished, TrackerError
from ..host.facts import NO, Facts, gather
from ..host.support import HELD, Verdict, assess, hint
from ..spec import NETLINK, RUNTIME, Spec
from ..store import Store
from . import access, lock, memory, reconcile, reconciled, swap, telemetry
from .reconciled import Result
from .state import Active, Loaded

ASSET = "conntrack"
# The longest that one reconciliation takes
RECONCILE_SECONDS = 240.0


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
    lock_path: str = lock.LOCK
    holder_path: str = held_links.SOCKET
    stays: bool = False
    own_follower: follower_process.OwnThread | None = field(default=None, init=False)
    own_holder: holder.Holder | None = field(default=None, init=False)

    @property
    def pins(self) -> Pins:
        """The pins of the active tracker."""
        return Pins(self.folder, RECORD)

    @property
    def active(self) -> Active:
        """What is active on this host, for reading."""
        return Active(self.folder, self.holder_path, self.lock_path)

    def read(self) -> Loaded:
        """Compare the record with the kernel (see `state.Active`)."""
        return self.active.read()

    def require_bpffs(self) -> None:
        """Raise LoaderError where nothing can be pinned."""
        check_mounted(os.path.dirname(self.folder))

    # --- loading ---------------------------------------------------------------------------------

    def load(self, spec: Spec) -> Outcome:
        """Bring the kernel to `spec`, with the object from the store; count the result.

        Raises a TrackerError whose result says at which step it failed: the former tracker, or
        none, is active then as before. LoadUnfinished says that `spec` is active all the same.
        """
        try:
            with lock.held(self.lock_path):
                outcome = self._load(spec)
        except LoadUnfinished as exc:
            if exc.new_keeper:
                keeper_unit.hand_over()
            raise
        if outcome.new_keeper:
            keeper_unit.hand_over()
        return outcome

    def _load(self, spec: Spec) -> Outcome:
        self.require_bpffs()
        swap.finish(self.active)  # of a load that was killed
        before = self.active.inspect()
        if before.record and before.fingerprint == spec.fingerprint and not before.drift:
            access.grant(self.folder, access.group_id())
            keep_links_of(before.record, self.holder_path)
            with contextlib.suppress(TrackerError, OSError):  # it is kept with the result
                self._reconcile(before.record, "load of the same spec")
            return Outcome(False, before.record)
        try:
            outcome = self._replace(spec, before)
        except TrackerError as exc:
            telemetry.count(self.store, ASSET, exc.result or "loader")
            raise
        telemetry.count(self.store, ASSET, str(outcome.record["btf_result"]))
        return outcome

    def _replace(self, spec: Spec, before: Loaded) -> Outcome:
        with contextlib.ExitStack() as stack:
            backend = None
            try:
                backend = stack.enter_context(self._choose(spec, before))
                backend.prepare()
                backend.attach()
                backend.sync()
                swap.stage(self.pins, backend.pinned())
            except (TrackerError, OSError) as exc:
                raise self._kept_former(exc, backend, before) from exc
            try:
                backend.keep()
                swap.finish(self.active)
                self._stay_for(backend)
                backend.settle()
                self._verify(spec)
            except (TrackerError, OSError) as exc:
                raise self._left_new(exc, backend, spec) from exc
            return Outcome(True, backend.record, backend.request.verdict, backend.new_keeper)

    def _choose(self, spec: Spec, before: Loaded) -> Backend:
        """Refuse what can be refused before anything is touched; return what keeps the table."""
        content = self.store.read_object(spec.object_sha256)
        load_modules()
        facts = gather(spec.btf_path)
        verdict = _require(facts, spec)
        request = self._request(spec, facts, verdict, before)
        _require_memory(request)
        if verdict.tier == NETLINK:
            return Netlink(request)
        backend = HeldPrograms if verdict.lifecycle == HELD else Programs
        return backend(request, content)

    def _kept_former(
        self, exc: TrackerError | OSError, backend: Backend | None, before: Loaded
    ) -> TrackerError:
        """Before the swap: what was begun is ended, and the error says what is active."""
        if backend is not None:
            with contextlib.suppress(TrackerError, OSError):
                backend.abandon()
        what = "the tracker that ran before keeps running" if before.pins else "nothing was loaded"
        if isinstance(exc, OSError):
            return LoaderError(f"the kernel refused a step of the load ({exc.strerror}): {what}")
        if before.pins or backend is not None:  # or it was refused where nothing was ever there
            exc.args = (f"{exc} ({what})",)
        return exc

    def _left_new(
        self, exc: TrackerError | OSError, backend: Backend, spec: Spec
    ) -> LoadUnfinished:
        """After the swap: it is finished as far as can be, and the error says what is active."""
        for step in (
            backend.keep,
            lambda: swap.finish(self.active),
            lambda: keep_links_of(backend.record, self.holder_path),
        ):
            with contextlib.suppress(TrackerError, OSError):
                step()
        if isinstance(exc, OSError):
            why = f"the kernel refused a step after the swap ({exc.strerror}): load it again"
        else:
            why = str(exc)
        said = f"spec {spec.fingerprint[:12]} is active now, but {why}"
        return LoadUnfinished(said, backend.record, backend.new_keeper)

    def _verify(self, spec: Spec) -> None:
        after = self.active.inspect()
        if after.fingerprint != spec.fingerprint or after.drift:
            raise LoaderError(
                "the tracker does not read back as it was loaded "
                f"({'; '.join(after.drift) or 'another record'}): load it again"
            )

    # --- reconciling -----------------------------------------------------------------------------

    def reconcile(self, why: str) -> Result:
        """Bring the maps to what the kernel has, while the tracker runs; `why` is for the result.

        Raises a TrackerError or an OSError, which is kept with the result too.
        """
        with lock.held(self.lock_path):
            swap.finish(self.active)
            before = self.active.inspect()
            if before.record is None or before.drift:
                found = "; ".join(before.drift) or "no tracker is loaded"
                raise LoaderError(f"{found}: load it first (`btfleet load`)")
            return self._reconcile(before.record, why)

    def _reconcile(self, record: dict[str, object], why: str) -> Result:
        last = reconciled.read(record, self.active.reconciled_path)
        if record_map.is_followed(record):  # its process compares by itself, again and again
            return last
        signs = reconcile.signs(record, self.pins, last)
        begin = time.monotonic()
        found = last._replace(added=0, removed=0, error=None)
        try:
            done = self._reconcile_maps(record, last.last_pass)
            found = found._replace(added=done.added, removed=done.removed, last_pass=done.last_pass)
            if done.unread:
                found = found._replace(
                    error=f"network namespaces that could not be read: {len(done.unread)}, "
                    f"such as {done.unread[0]}"
                )
            # What was missed shows in these numbers for ever
            surplus = reconcile.signs(record, self.pins, last).surplus
            signs = signs._replace(surplus=surplus)
        except (TrackerError, OSError) as exc:
            found = found._replace(error=str(exc), last_pass=seed.next_pass(last.last_pass + 1))
            raise
        finally:
            seconds = round(time.monotonic() - begin, 3)
            found = found._replace(at=int(time.time()), seconds=seconds)
            result = reconciled.following(last, signs, why, found)
            reconciled.write(result, self.active.reconciled_path)
        return result

    def _reconcile_maps(self, record: dict[str, object], last_pass: int) -> seed.Reconciled:
        spec = Spec.from_dict(record["spec"])
        content = self.store.read_object(spec.object_sha256)
        facts = gather(spec.btf_path)
        verdict = dataclasses.replace(_require(facts, spec), tier=str(record["tier"]))
        request = Request(
            spec, facts, verdict, self.pins, record, self.holder_path, last_pass=last_pass
        )
        with contextlib.closing(Reconciling(request, content)) as backend:
            return backend.run(RECONCILE_SECONDS)

    def check(self, spec: Spec) -> Verdict:
        """Return the verdict; raise what a load is refused for before it touches the kernel."""
        self.require_bpffs()
        facts = gather(spec.btf_path)
        verdict = _require(facts, spec)
        _require_memory(self._request(spec, facts, verdict, self.read()))
        return verdict

    def _request(self, spec: Spec, facts: Facts, verdict: Verdict, before: Loaded) -> Request:
        last_pass = 0
        if before.record is not None:
            last_pass = reconciled.read(before.record, self.active.reconciled_path).last_pass
        where = (self.pins, before.record, self.holder_path, last_pass)
        return Request(spec, facts, verdict, *where, self.stays)

    # --- staying ---------------------------------------------------------------------------------

    def _stay_for(self, backend: Backend) -> None:
        """This process keeps what it has begun to keep."""
        if isinstance(backend, Netlink):
            self.own_follower = backend.own_follower or self.own_follower
        if isinstance(backend, HeldPrograms):
            self.own_holder = backend.own_holder or self.own_holder

    def follow(self) -> follower_process.OwnThread:
        """Have this process follow conntrack events, whichever does so far."""
        if self.own_follower is None:
            self.own_follower = follower_process.OwnThread(self.folder)
        return self.own_follower

    def hold_links(self) -> holder.Holder:
        """Have this process hold the links, whichever does so far."""
        with lock.held(self.lock_path):
            if self.own_holder is None:
                self.own_holder = holder.take_over(self.holder_path)
                self.own_holder.start()
            return self.own_holder

    # --- unloading -------------------------------------------------------------------------------

    def unload(self) -> bool:
        """Take the tracker out of the kernel; return whether there was one."""
        if not self.pins.names() and self.active.holding_process() is None:
            return False
        with lock.held(self.lock_path):
            record, follower = self.active.read_record(), self.active.read_pulse()
            self.pins.remove()
            keep_links_of(None, self.holder_path)
            await_gone(record_map.probe_links(record))
            follower_process.await_end(follower)
            reconciled.forget(self.active.reconciled_path)
            return True

    def forget_lock(self) -> None:
        """Remove lock file and socket, for a host that is to keep nothing of ours."""
        with lock.held(self.lock_path):
            if self.active.holding_process() is None:
                holder.forget(self.holder_path)
            lock.forget(self.lock_path)


def _require_memory(request: Request) -> None:
    with contextlib.ExitStack() as stack:
        kept = kept_maps(request, former_maps(request, stack))
    memory.require(request.spec, kept)


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
