# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts wrong entries into the maps of a running tracker, takes right ones out, and reconciles.

    python3 -m guest.reconciling [--tier core/fentry] [--flows 300]

After each reconciliation, the live map has to be what `conntrack -L` says, in both directions and
in each namespace: by hand, by a load of the same spec, and by the timer's command where the kernel
does not count what it passes over. Flows come and go meanwhile, and none may be missed or left.
Exit code 1, and one line, for the first thing that is not so. Needs a spec file and its object;
leaves the tracker loaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import time

from .commands import SPEC_FILE, GuestError, run

sys.path.insert(0, os.environ.get("BTFLEET_LIB", "/opt/btfleet/current/lib"))

from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import flow as flows_of
from btfleet._kernel.conntrack import reading
from btfleet._kernel.conntrack.layout import (
    CLOSED,
    GENERATION_OFFSET,
    KEY,
    LIVE,
    VALUE,
)
from btfleet._kernel.loader import misses, reconciled
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.spec import Spec

_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")
_NAMESPACES = ("reconcile-a", "reconcile-b")

# Both ports of a flow that never was, as one number
_NEVER_USED = itertools.count(os.getpid() * 1000)

End = tuple[str, int, str, int]
Flows = set[tuple[End, End]]


def inside(name: str, *command: str) -> str:
    """The output of a command in a namespace."""
    return run("ip", "netns", "exec", name, *command)


def number(name: str) -> int:
    """Of a namespace."""
    return os.stat(f"/run/netns/{name}").st_ino


def enter(name: str, first: int, count: int) -> None:
    """Make translated flows through ctnetlink."""
    lines = "".join(
        f"-I -p udp -s 10.1.0.1 -d 10.2.0.1 --sport {port} --dport 53 -t 3000 --src-nat 192.0.2.1\n"
        for port in range(first, first + count)
    )
    subprocess.run(
        ["ip", "netns", "exec", name, "conntrack", "-R", "/dev/stdin"],
        input=lines,
        text=True,
        check=True,
        capture_output=True,
    )


def kernel(name: str) -> Flows:
    """What conntrack(8) says."""
    found = set()
    for line in inside(name, "conntrack", "-L").splitlines():
        ends = [
            (src, int(sport), dst, int(dport)) for src, dst, sport, dport in _TUPLE.findall(line)
        ]
        if len(ends) == 2 and (ends[0][0], ends[0][1]) != (ends[1][2], ends[1][3]):
            found.add((ends[0], ends[1]))
    return found


def live(tracker: Tracker, name: str, orig: bool) -> Flows:
    """What the map says, read from the entries of one direction."""
    found = set()
    for key, value in reading.entries(tracker.pins, LIVE):
        if KEY.unpack(key)[0] == number(name) and bool(value[-2] & 1) == orig:
            flow = flows_of.decode(key, value, "live")
            found.add((flow.orig, flow.reply))
    return found


def require_same(tracker: Tracker, what: str) -> None:
    """Both directions, in each namespace."""
    for name in _NAMESPACES:
        expected = kernel(name)
        for orig in (True, False):
            found = live(tracker, name, orig)
            if found != expected:
                raise GuestError(
                    f"{what}: {name} has {len(expected - found)} flows that the map lacks, and the "
                    f"map {len(found - expected)} that it lacks (of {len(expected)}; orig {orig})"
                )
    print(f"{what}: as conntrack -L has it, in both directions", flush=True)


def damage(tracker: Tracker, share: int) -> tuple[int, int]:
    """Take each `share`th entry out, and put as many in of flows that never were; the numbers."""
    with bpf.closing(tracker.pins.open(LIVE)) as fd:  # type: ignore[arg-type]
        entries = [entry for entry in bpf.map_entries(fd) if in_use(entry[0])]
        out = entries[::share]
        for key, _value in out:
            bpf.map_delete(fd, key)
        wrong = entries[1::share]
        for key, value in wrong:
            fields = list(KEY.unpack(key))
            fields[-2:] = divmod(next(_NEVER_USED) % 60000**2, 60000)
            bpf.map_update(fd, KEY.pack(*fields), value)
        # And some whose flows live, but whose cookie is another one's
        for key, value in entries[2::share]:
            changed = list(VALUE.unpack(value))
            changed[0] += 8
            changed[-1] = 0
            bpf.map_update(fd, key, VALUE.pack(*changed))
    return len(out), len(wrong)


def in_use(key: bytes) -> bool:
    """Whether an entry is of one of our namespaces."""
    return KEY.unpack(key)[0] in [number(name) for name in _NAMESPACES]


def closed(tracker: Tracker) -> int:
    """How many entries there are of flows that have ended."""
    return sum(1 for key, _value in reading.entries(tracker.pins, CLOSED) if in_use(key))


def cookies_are_right(tracker: Tracker) -> None:
    """All of the flows end, and no entry stays: each had the address of its flow."""
    for name in _NAMESPACES:
        inside(name, "conntrack", "-F")
    left = [key for key, _value in reading.entries(tracker.pins, LIVE) if in_use(key)]
    if left:
        entries = dict(reading.entries(tracker.pins, LIVE))
        shown = [
            (flows_of.decode(key, entries[key], "live"), entries[key][:8].hex(), entries[key][-2:])
            for key in left[:6]
            if key in entries
        ]
        missed = misses.read(tracker.active.read_record())
        raise GuestError(
            f"{len(left)} entries stay after all flows have ended: {shown} (missed: {missed})"
        )
    print("no entry stays when the flows end", flush=True)


def check(tier: str | None, flows: int) -> None:
    """Raises GuestError."""
    for name in _NAMESPACES:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        run("ip", "netns", "add", name)
    tracker = Tracker()
    with open(SPEC_FILE, encoding="utf-8") as stream:
        spec = Spec.from_json(stream.read(), str(SPEC_FILE))
    if tier is not None:
        spec = dataclasses.replace(spec, tiers=(tier,), allow_fentry_deadlock=True)
    tracker.load(spec)
    for name in _NAMESPACES:
        enter(name, 2000, flows)
    require_same(tracker, "before")
    result = tracker.reconcile("test")
    if (result.added, result.removed) != (0, 0):
        raise GuestError(f"nothing was wrong, and it says {result}")
    for how in ("by hand", "by a load of the same spec"):
        before = closed(tracker)
        out, wrong = damage(tracker, 7)
        if how == "by hand":
            result = tracker.reconcile("test")
        else:
            if tracker.load(spec).changed:
                raise GuestError("a load of the same spec says that it changed something")
            record = tracker.active.read_record()
            result = reconciled.read(record or {}, tracker.active.reconciled_path)
        print(
            f"{how}: {out} entries were out, {wrong} wrong: {json.dumps(result._asdict())}",
            flush=True,
        )
        require_same(tracker, how)
        if closed(tracker) - before < wrong:
            raise GuestError(f"{closed(tracker) - before} entries of {wrong} were moved to closed")
    _while_flows_come_and_go(tracker)
    cookies_are_right(tracker)
    _of_a_namespace_that_is_gone(tracker)


def _while_flows_come_and_go(tracker: Tracker) -> None:
    stop = time.monotonic() + 20
    churn = subprocess.Popen(
        [sys.executable, "-c", _CHURN, *_NAMESPACES], stdin=subprocess.PIPE, text=True
    )
    while time.monotonic() < stop:
        damage(tracker, 11)
        tracker.reconcile("test")
    churn.terminate()
    churn.wait()
    # Each map call here makes its CPU miss flows that come and go meanwhile, in the tier kprobe
    tracker.reconcile("test")
    require_same(tracker, "after flows came and went")


_CHURN = """
import subprocess, sys, time
port = 10000
while True:
    for name in sys.argv[1:]:
        port = 10000 + (port - 9999) % 40000
        one = f"-p udp -s 10.1.0.9 -d 10.2.0.1 --sport {port} --dport 53"
        text = f"-I {one} -t 3000 --src-nat 192.0.2.1\\n"
        if port % 2:
            text += f"-D {one}\\n"
        subprocess.run(["ip", "netns", "exec", name, "conntrack", "-R", "/dev/stdin"], input=text,
                       text=True, capture_output=True)
"""


def _of_a_namespace_that_is_gone(tracker: Tracker) -> None:
    name = _NAMESPACES[0]
    enter(name, 2000, 5)
    gone = number(name)
    with bpf.closing(tracker.pins.open(LIVE)) as fd:  # type: ignore[arg-type]
        kept = [entry for entry in bpf.map_entries(fd) if KEY.unpack(entry[0])[0] == gone]
        run("ip", "netns", "del", name)
        deadline = time.monotonic() + 30
        while any(KEY.unpack(key)[0] == gone for key, _value in bpf.map_entries(fd)):
            if time.monotonic() > deadline:
                raise GuestError("entries of a namespace that is gone stay though it ended")
            time.sleep(0.2)
        time.sleep(2)
        for key, value in kept:  # as if the ends had been missed
            bpf.map_update(fd, key, value[:GENERATION_OFFSET] + b"\0")
        result = tracker.reconcile("test")
        if result.removed != len(kept):
            raise GuestError(f"{len(kept)} entries of a namespace that is gone, and {result}")
    print(f"{len(kept)} entries of a namespace that is gone are removed", flush=True)


def main() -> int:
    """Exit code 1 for the first thing that is not so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier")
    parser.add_argument("--flows", type=int, default=300)
    options = parser.parse_args()
    try:
        check(options.tier, options.flows)
    except GuestError as exc:
        print(f"reconciling: {exc}", file=sys.stderr)
        return 1
    finally:
        for name in _NAMESPACES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    print("reconciling: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
