# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks`: boots guests, measures, writes results to build/bench/."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import comparisons, machine, report, rollout
from benchmarks.guest import BenchError, Guest, Series
from lab import guests, qemu
from lab.catalogue import find_host
from lab.errors import LabError
from lab.paths import DEFAULT_STATE

STATE = DEFAULT_STATE.with_name("lab-bench")
OUT = DEFAULT_STATE.with_name("bench")
# A million flows take 0.8 GB in the kernel's table and in the map
MEMORY_MB = {"debian13": 4096, "debian12": 1024}
MAIN = "debian13"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int
    flows: int
    many: int
    connections: int


FULL = Sizes(rounds=5, flows=60000, many=1000000, connections=500)
QUICK = Sizes(rounds=2, flows=3000, many=0, connections=50)


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measurements(sizes: Sizes) -> dict[str, dict[str, int]]:
    """The scripts of benchmarks/in_guest, with their options."""
    rounds, flows = sizes.rounds, sizes.flows
    return {
        "support": {"rounds": rounds},
        "lookup": {"rounds": rounds, "flows": flows},
        "dump": {"rounds": rounds, "flows": flows, "many": sizes.many},
        "program_time": {"rounds": rounds, "flows": flows // 4},
        "connections": {
            "rounds": rounds,
            "flows": flows // 2,
            "connections": sizes.connections,
        },
        "load": {"rounds": rounds, "flows": flows},
    }


def boot(names: list[str]) -> list[Guest]:
    """The guests, with the product rolled out."""
    found = []
    for name in names:
        inventory = guests.start([find_host(name)], STATE, say, memory_mb=MEMORY_MB[name])
        found.append(Guest(qemu.running_guests(STATE)[name], inventory))
    for guest in found:
        say(f"rolling out on {guest.name}")
        guest.playbook(rollout.ROLLOUT)
        guest.send_scripts()
    return found


def measure_all(
    running: list[Guest], sizes: Sizes, only: list[str]
) -> dict[str, dict[str, Series]]:
    """Series by guest and measurement: everything on the first, less on others."""
    results: dict[str, dict[str, Series]] = {guest.name: {} for guest in running}
    for guest in running:
        for name, options in measurements(sizes).items():
            if (only and name not in only) or (guest.name != MAIN and name != "program_time"):
                continue
            started = time.monotonic()
            results[guest.name][name] = guest.measure(name, **options)
            say(f"{guest.name}: {name} took {time.monotonic() - started:.0f} s")
        if guest.name == MAIN and (not only or "rollout" in only):
            results[guest.name]["rollout"] = rollout.measure(guest, OUT, min(3, sizes.rounds))
            say(f"{guest.name}: rollout is done")
    return results


def write(conditions: dict[str, object], results: dict[str, dict[str, Series]]) -> str:
    """Both files; the table."""
    rows = comparisons.rows(results)
    data = {**conditions, "rows": [row.to_dict() for row in rows], "series": results}
    (OUT / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    text = f"{report.heading(conditions)}\n{report.table(rows)}"
    (OUT / "results.md").write_text(text)
    return text


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--keep", action="store_true", help="leave the guests running")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[*measurements(QUICK), "rollout"], metavar="NAME"
    )
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    OUT.mkdir(parents=True, exist_ok=True)
    host = machine.of_host()
    needs_all = not options.only or "program_time" in options.only
    try:
        running = boot(list(MEMORY_MB) if needs_all else [MAIN])
        about = {guest.name: machine.of_guest(guest) for guest in running}
        results = measure_all(running, sizes, options.only)
        print(write({"host": host, "guests": about, "sizes": vars(sizes)}, results), end="")
        print(f"bench: all figures are in {Path('build') / OUT.name / 'results.json'}")
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    finally:
        if not options.keep:
            guests.stop([], STATE, say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
