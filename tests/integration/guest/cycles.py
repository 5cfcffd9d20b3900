# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads, changes and unloads the tracker many times under traffic, in each tier of the host.

    python3 -m guest.cycles [--times 100] [--tiers core/fentry ...]

Every flow between the end of a load and the unload has to be known. At the end the kernel has as
many programs, maps and links as at the start, this process as many descriptors, memory is back, and
no task hangs. Exit code 1, and one line, for the first thing that is not so. Needs a spec file and
its object; leaves the host without a tracker.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence

from .commands import SPEC_FILE, GuestError, bpftool, run

sys.path.insert(0, "/opt/btfleet/current/lib")

from btfleet._kernel.host.facts import gather
from btfleet._kernel.host.support import assess
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.spec import NETLINK, TIERS, Spec

# More is too much for emulated guests, where a process has to follow each of them
RATE = "5"
PATIENCE = 60.0
# The check that fails as long as there was no flow
MADE = "there were churned flows"
# A map of flows takes more than a tenth of it, so ten that are left behind are seen
MEMORY_KB = 64 << 10


@dataclasses.dataclass(frozen=True)
class Use:
    """What is taken: things in the kernel, descriptors of this process, and kilobytes."""

    programs: int
    maps: int
    links: int
    descriptors: int
    own_kb: int
    available_kb: int


def _field(path: str, name: str) -> int:
    with open(path, encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith(name + ":"))


def use() -> Use:
    """Now, when the kernel has had time to free what nobody holds any more."""
    time.sleep(2)
    return Use(
        len(bpftool("prog", "show")),
        len(bpftool("map", "show")),
        len(bpftool("link", "show")),
        len(os.listdir("/proc/self/fd")),
        _field("/proc/self/status", "VmRSS"),
        _field("/proc/meminfo", "MemAvailable"),
    )


def check_use(before: Use, after: Use) -> None:
    """Nothing is left behind."""
    for name in ("programs", "maps", "links", "descriptors"):
        found, wanted = getattr(after, name), getattr(before, name)
        if found > wanted:
            raise GuestError(f"{found} {name} after the cycles, {wanted} before")
    grown = max(after.own_kb - before.own_kb, before.available_kb - after.available_kb)
    if grown > MEMORY_KB:
        raise GuestError(f"{grown} kB of memory are gone: {before}, {after}")


def check_tasks() -> None:
    """The kernel says so of a task that hangs for two minutes; it looks that often."""
    hanging = [line for line in run("dmesg").splitlines() if "blocked for more than" in line]
    if hanging:
        raise GuestError(hanging[0])


def specs(tier: str) -> list[Spec]:
    """Of the tier: as in the spec file, then with another setting, then with other sizes, too."""
    given = json.loads(SPEC_FILE.read_text())
    first = Spec.from_dict({**given, "tiers": [tier], "allow_fentry_deadlock": False})
    second = dataclasses.replace(first, udpv6_enabled=not first.udpv6_enabled)
    third = dataclasses.replace(second, max_entries=first.max_entries // 2, closed_entries=32768)
    return [first, second, third]


def _load(tracker: Tracker, spec: Spec) -> None:
    # Where a process has to stay, the unit takes over, with what the file says
    SPEC_FILE.write_text(spec.to_json())
    tracker.load(spec)


def _look(begin: float, lags: bool) -> int:
    """How many flows were made since then, all of which are known: at once, or after a while
    where a process `lags` behind the kernel.
    """
    deadline = time.monotonic() + PATIENCE
    time.sleep(2)
    span = ["--since", str(begin), "--until", str(time.time())]
    while True:
        said = run("python3", "-m", "nat", "churn", "look", *span, ok=(0, 1))
        report = json.loads(said[said.index("{\n") : said.rindex("}") + 1])
        failed = [one["name"] for one in report["checks"] if not one["ok"]]
        made = next((one["detail"] for one in report["checks"] if one["name"] == MADE), None)
        if made is None:
            raise GuestError(f"the flows cannot be looked up: {', '.join(failed)}")
        flows: int = sum(made.values())
        if not failed or not lags or time.monotonic() > deadline:
            break
    if failed:
        raise GuestError(" ".join(said[: said.index("{\n")].split()))
    return flows


def cycle(tracker: Tracker, wanted: Sequence[Spec]) -> int:
    """One load, two changes and an unload; how many flows there were."""
    _load(tracker, wanted[0])
    begin = time.time()
    for spec in wanted[1:]:
        _load(tracker, spec)
    flows = _look(begin, lags=wanted[0].tiers == (NETLINK,))
    tracker.unload()
    return flows


def work(tier: str, times: int) -> None:
    """Prints the figures of a tier, and raises GuestError for bad ones."""
    tracker, wanted = Tracker(), specs(tier)
    # Not before the first time: libraries are loaded then
    flows = cycle(tracker, wanted)
    before, begin = use(), time.monotonic()
    for _number in range(times - 1):
        flows += cycle(tracker, wanted)
    seconds = time.monotonic() - begin
    after = use()
    figures = {
        "tier": tier,
        "cycles": times,
        "flows": flows,
        "seconds_a_cycle": round(seconds / max(times - 1, 1), 2),
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(after),
    }
    print(json.dumps(figures), flush=True)
    check_use(before, after)
    check_tasks()


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=TIERS)
    options = parser.parse_args()
    given = SPEC_FILE.read_text()
    facts = gather(json.loads(given).get("btf_path"))
    possible = [tier for tier in options.tiers if assess(facts, (tier,)).supported]
    if not possible:
        print(f"{' and '.join(options.tiers)}: not possible on this host", file=sys.stderr)
        return 1
    Tracker().unload()
    try:
        run("python3", "-m", "nat", "up")
        # IPv6 over UDP is not tracked with each of the specs
        traffic = ["--rate", RATE, "--seconds", "1000000", "--leave-out", "ipv6/udp"]
        run("python3", "-m", "nat", "churn", "start", *traffic)
        for tier in possible:
            work(tier, options.times)
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        SPEC_FILE.write_text(given)
        run("python3", "-m", "nat", "down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
