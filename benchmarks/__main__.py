# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks`: counts instructions in a guest, writes results to build/bench/.

The product is rolled out on an ordinary guest. That guest starts again for each run, with a clock
that counts its instructions: no figure depends on what else this machine does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, report, rollout, rows
from benchmarks.guest import BenchError, Guest
from lab import guests, qemu
from lab.catalogue import HOSTS, Host, find_host
from lab.errors import LabError
from lab.paths import DEFAULT_STATE

STATE = DEFAULT_STATE.with_name("lab-bench")
OUT = DEFAULT_STATE.with_name("bench")

# The scripts of benchmarks/in_guest, with their options. First those that need no other load
FULL: dict[str, dict[str, int]] = {
    "lookup": {"flows": 20000, "rounds": 3},
    "dump": {"flows": 20000},
    "support": {"rounds": 1},
    "programs": {"flows": 2000},
    "flows": {"flows": 2000},
    "load": {"flows": 10000},
}
SMALLEST: dict[str, dict[str, int]] = {
    "lookup": {"flows": 50, "rounds": 1},
    "dump": {"flows": 50},
    "support": {"rounds": 1},
    "programs": {"flows": 50},
    "flows": {"flows": 50},
    "load": {"flows": 50},
}


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def running(host: Host, state: Path) -> Guest:
    """The guest of that name in a state folder of the lab."""
    found = qemu.running_guests(state).get(host.name)
    if found is None:
        raise BenchError(f"{host.name} is not running in {state}: `python3 -m lab up {host.name}`")
    return Guest(found, state / "inventory.yml")


def roll_out(host: Host) -> None:
    """Bring the product to a guest, and shut it down."""
    guests.start([host], STATE, say)
    guest = running(host, STATE)
    say(f"rolling out on {guest.name}")
    guest.playbook(rollout.ROLLOUT)
    guest.shut_down()


def one_run(guest: Guest, sizes: dict[str, dict[str, int]], object_file: Path | None) -> rows.Run:
    """The figures of one run, by measurement."""
    if object_file:
        guest.install_object(object_file)
    results: rows.Run = {}
    with guest.with_scripts():
        for name, options in sizes.items():
            started = time.monotonic()
            results[name] = guest.measure(name, **options)
            figures = ", ".join(f"{what}: {value:,.0f}" for what, value in results[name].items())
            say(f"{name}, after {time.monotonic() - started:.0f} s: {figures}")
        guest.run("btfleet load")  # what the rollout had loaded
    return results


def in_fresh_guests(
    options: argparse.Namespace, sizes: dict[str, dict[str, int]]
) -> Iterator[rows.Run]:
    """The figures of each run, in a guest that has just booted; all so far are written."""
    host = find_host(options.host)
    conditions: dict[str, object] = {"host": machine.of_host(), "sizes": sizes}
    OUT.mkdir(parents=True, exist_ok=True)
    roll_out(host)
    results: list[rows.Run] = []
    for number in range(options.runs):
        say(f"run {number + 1} of {options.runs}")
        guests.start_again(host.counting(), STATE, say)
        guest = running(host, STATE)
        guest.run("systemctl is-system-running --wait || true")
        conditions["guest"] = machine.of_guest(guest)
        results.append(one_run(guest, sizes, options.object))
        write(conditions, results)
        yield results[-1]
        if number + 1 < options.runs:
            guest.shut_down()
    say(f"all figures are in {Path('build') / OUT.name / 'results.json'}")


def write(conditions: dict[str, object], results: list[rows.Run]) -> None:
    """Both files."""
    found = rows.rows(results)
    table = [asdict(row) | {"ratio": row.ratio} for row in found]
    data = {**conditions, "rows": table, "runs": results}
    (OUT / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    (OUT / "results.md").write_text(report.table(found))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smallest", action="store_true", help="only to see that it works")
    parser.add_argument("--only", nargs="+", default=list(FULL), choices=FULL, metavar="ROW")
    parser.add_argument("--runs", type=int, default=2, help="each in a guest of its own (2)")
    parser.add_argument("--host", default="debian13", choices=HOSTS, help="of the lab (debian13)")
    parser.add_argument("--keep", action="store_true", help="leave the guest running")
    parser.add_argument(
        "--running",
        type=Path,
        metavar="STATE",
        help="all runs in the guest of this state folder, as it is; the table is only printed",
    )
    parser.add_argument(
        "--object", type=Path, metavar="FILE", help="an object file in place of the installed one"
    )
    options = parser.parse_args()
    sizes = {name: (SMALLEST if options.smallest else FULL)[name] for name in options.only}
    try:
        if options.running:
            guest = running(find_host(options.host), options.running.resolve())
            results = [one_run(guest, sizes, options.object) for _run in range(options.runs)]
        else:
            results = list(in_fresh_guests(options, sizes))
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    finally:
        if not (options.keep or options.running):
            guests.stop([], STATE, say)
    print(report.table(rows.rows(results)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
