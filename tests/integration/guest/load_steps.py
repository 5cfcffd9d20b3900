# SPDX-License-Identifier: GPL-3.0-or-later
"""Fails a load at each of its steps, by an error and by a kill, and looks at what is left.

    python3 -m guest.load_steps [--changes nothing:core/kprobe core/kprobe:netlink ...]

From each tier to the same one with other sizes, and to the next one. Whatever a load fails at, the
former tracker is active after it, or the new one, and works; the message says which; and the next
load, without any help, ends as if nothing had been. Exit code 1, and one line, for the first thing
that is not so. Needs a spec file and its object; leaves the host without a tracker.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .commands import SPEC_FILE, GuestError

sys.path.insert(0, "/opt/btfleet/current/lib")

from btfleet._kernel.backends import base, daemon, held_links, holder, keeper_unit, seed
from btfleet._kernel.backends.netlink import follower_process
from btfleet._kernel.bpf import bpf, calls
from btfleet._kernel.bpf.libbpf import BpfObject
from btfleet._kernel.conntrack import record_map
from btfleet._kernel.errors import LoadUnfinished, TrackerError
from btfleet._kernel.host.facts import gather
from btfleet._kernel.host.support import assess
from btfleet._kernel.loader import access
from btfleet._kernel.loader import load as load_module
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.loader.state import Active
from btfleet._kernel.spec import TIERS, Spec

# What a load does to the host, from the moment that nothing can be refused any more
STEPS: tuple[tuple[Any, str], ...] = (
    (bpf, "map_create"),
    (calls, "obj_pin"),
    (bpf, "iterator_link"),
    (os, "chmod"),
    (os, "chown"),
    (os, "mkdir"),
    (os, "rename"),
    (os, "unlink"),
    (BpfObject, "load"),
    (BpfObject, "attach"),
    (BpfObject, "detach"),
    (BpfObject, "keep"),
    (seed, "take_in"),
    (seed.MapCalls, "copy"),
    (holder, "start"),
    (holder, "hold"),
    (holder, "keep"),
    (daemon, "start"),
    (follower_process, "await_synced"),
    (follower_process, "await_end"),
    (base, "await_gone"),
    (access, "grant"),
    (Active, "inspect"),
)
KEPT = "the tracker that ran before keeps running"
NOTHING = "nothing was loaded"
NONE = "nothing"
PATIENCE = 30.0


class Fault(NamedTuple):
    """What is done at which step of a load, counted from 0."""

    step: int
    kills: bool


class Result(NamedTuple):
    """How a load ended: the step that the fault was at (None: it has fewer), and its error."""

    at: str | None
    killed: bool = False
    error: str | None = None
    is_unfinished: bool = False


def load_with(tracker: Tracker, spec: Spec, fault: Fault) -> Result:
    """Load in a process of its own, which meets the fault."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            result = _load(tracker, spec, fault, writer)
        except Exception as exc:  # noqa: BLE001 what no load may raise is said by the parent
            result = Result(None, False, f"{type(exc).__name__}: {exc}")
        try:
            os.write(writer, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(writer)
    _pid, status = os.waitpid(child, 0)
    # A process that it has started lets go of the pipe
    with os.fdopen(reader, "rb") as stream:
        lines = stream.read().decode().splitlines()
    if os.WIFSIGNALED(status):
        return Result(lines[0], killed=True)
    return Result(*json.loads(lines[-1]))


def _load(tracker: Tracker, spec: Spec, fault: Fault, writer: int) -> Result:
    left, at, loader = fault.step, None, os.getpid()

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal left, at
            left -= os.getpid() == loader  # and no process that it starts
            if left == -1 and at is None:
                at = name
                if fault.kills:
                    os.write(writer, f"{name}\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOMEM, "the fault of the test")
            return call(*arguments, **named)

        return step

    choose = Tracker._choose

    def chosen(*arguments: Any) -> Any:
        backend = choose(*arguments)
        for owner, name in STEPS:
            call = getattr(owner, name)
            setattr(owner, name, wrapped(name, call))
            for module in (m for m in list(sys.modules.values()) if m is not owner):
                if getattr(module, name, None) is call:  # imported by its own name
                    setattr(module, name, getattr(owner, name))
        return backend

    Tracker._choose = chosen  # type: ignore[method-assign, assignment]
    try:
        tracker.load(spec)
    except TrackerError as exc:
        return Result(at, False, str(exc), isinstance(exc, LoadUnfinished))
    return Result(at)


# --- looking --------------------------------------------------------------------------------------


def active(tracker: Tracker) -> str | None:
    """The fingerprint in the record."""
    record = tracker.active.read_record()
    return str(record["fingerprint"]) if record else None


def works(tracker: Tracker) -> str | None:
    """Why nothing writes the entries of flows that come and go; None where something does."""
    record = tracker.active.read_record()
    if record is None:
        return "there is no record"
    if record_map.is_followed(record):
        return _beats(tracker)
    if record.get("held"):
        found = held_links.look(tracker.holder_path)
        return None if found and str(record["held"]) in found.sets else "no process holds the links"
    # After a kill in the swap a pin may be of the new set already: any whole set does
    missing = [role for role in record_map.probe_roles(record) if not _is_attached(tracker, role)]
    return f"nothing is attached for {', '.join(missing)}" if missing else None


def _beats(tracker: Tracker) -> str | None:
    deadline = time.monotonic() + PATIENCE
    before = tracker.active.read_pulse()
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = tracker.active.read_pulse()
        if before and now and now.is_alive() and now.beat_ns > before.beat_ns:
            return None
    return "nobody follows the events"


def _is_attached(tracker: Tracker, role: str) -> bool:
    for name in (record_map.LINK + role, "new_" + record_map.LINK + role):
        fd = tracker.pins.open(name)
        if fd is not None:
            os.close(fd)
            return True
    return False


def check(tracker: Tracker, former: Spec | None, spec: Spec, result: Result) -> None:
    """Raise GuestError unless the load has ended as its message says, in one of the two states."""
    found = active(tracker)
    states = {former.fingerprint if former else None: "former", spec.fingerprint: "new"}
    state = states.get(found)
    if state is None:
        raise GuestError(f"spec {found} is active, which is neither of the two")
    if found is not None:
        why = works(tracker)
        if why:
            raise GuestError(f"the {state} tracker is active, but {why}")
    if result.killed:
        return
    if result.error is None or result.is_unfinished:
        wanted = "new"
    else:
        wanted = "former"
        said = KEPT if former else NOTHING
        if said not in result.error:
            raise GuestError(f"the message does not say that {said}: {result.error}")
    if result.is_unfinished and f"spec {spec.fingerprint[:12]} is active now" not in str(
        result.error
    ):
        raise GuestError(f"the message does not say what is active: {result.error}")
    if state != wanted:
        raise GuestError(f"the {state} tracker is active after: {result.error or 'success'}")


def check_repaired(tracker: Tracker, spec: Spec) -> None:
    """One load more, without any help, and all is as it should be."""
    tracker.load(spec)
    loaded = tracker.read()
    if loaded.fingerprint != spec.fingerprint or loaded.drift:
        raise GuestError(f"the next load does not repair it: {'; '.join(loaded.drift)}")
    why = works(tracker)
    if why:
        raise GuestError(f"after the next load, {why}")


def rounds(
    tracker: Tracker, former: Spec | None, spec: Spec, kinds: tuple[bool, ...] = (False, True)
) -> Iterator[tuple[Fault, Result]]:
    """Each step of a load of `spec` in place of `former`, by an error and by a kill."""
    for kills in kinds:
        step = 0
        while True:
            if former is None:
                tracker.unload()
            else:
                tracker.load(former)
            fault = Fault(step, kills)
            result = load_with(tracker, spec, fault)
            try:
                check(tracker, former, spec, result)
                check_repaired(tracker, spec)
            except GuestError as exc:
                kind = "a kill" if kills else "an error"
                raise GuestError(f"{kind} at step {step} ({result.at}): {exc}") from None
            yield fault, result
            if result.at is None:
                break
            step += 1
            if former is not None and former.tiers == spec.tiers:
                former, spec = spec, former  # the one is active by now, and the steps are the same


def changes(tiers: list[str]) -> list[str]:
    """From nothing to the first, from each to itself, and from each to the next."""
    found = [f"{NONE}:{tiers[0]}"]
    for number, tier in enumerate(tiers):
        following = tiers[(number + 1) % len(tiers)]
        found += [f"{tier}:{other}" for other in dict.fromkeys((tier, following))]
    return found


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", nargs="+", help=f"as {NONE}:netlink; else all of this host")
    options = parser.parse_args()
    given = json.loads(SPEC_FILE.read_text())
    facts = gather(given.get("btf_path"))
    # They stay the same, and take the most of a load
    load_module.gather = lambda _path=None: facts  # type: ignore[attr-defined, assignment]
    keeper_unit.hand_over = lambda: None  # the unit's process would load what the file says
    possible = [tier for tier in TIERS if assess(facts, (tier,)).supported]
    tracker = Tracker()
    try:
        for change in options.changes or changes(possible):
            before, after = change.split(":")
            first = Spec.from_dict({**given, "tiers": [after if before == NONE else before]})
            entries = first.max_entries // 2
            spec = dataclasses.replace(
                first, tiers=(after,), max_entries=entries, closed_entries=entries
            )
            seen: Counter[str] = Counter()
            for fault, result in rounds(tracker, None if before == NONE else first, spec):
                seen[("kill" if fault.kills else "error") + f" at {result.at}"] += 1
                print(change, fault, result, file=sys.stderr, flush=True)
            print(json.dumps({"change": change, "steps": seen}), flush=True)
    except GuestError as exc:
        print(f"{change}: {exc}", file=sys.stderr)
        return 1
    finally:
        tracker.unload()
    return 0


if __name__ == "__main__":
    sys.exit(main())
