# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks.fleet`: runs that change nothing, ours and an ordinary agent's.

Measures seconds, module runs and bytes for each host, with one guest and with three; then how
compliance grows from 1 to 100 hosts. Writes build/bench/fleet.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.fleet import growth, service
from benchmarks.guest import BenchError, Guest
from benchmarks.rollout import module_runs
from lab import guests, qemu
from lab.catalogue import find_host
from lab.errors import LabError
from lab.paths import CHECKOUT, DEFAULT_STATE

STATE = DEFAULT_STATE.with_name("lab-bench")
OUT = DEFAULT_STATE.with_name("bench")
HOSTS = ("debian12", "debian13", "debian13-b")
ORDINARY = str(Path(__file__).with_name("ordinary_agent.yml"))
RUNS = {
    "rollout": ["btfleet.conntrack.rollout"],
    "ordinary agent": [ORDINARY],
    "compliance": ["btfleet.conntrack.compliance"],
    "ordinary agent, --check": [ORDINARY, "--check"],
}
# The interface that ansible comes by; what measuring itself sends is subtracted
COUNTERS = "cat /sys/class/net/e*/statistics/rx_bytes /sys/class/net/e*/statistics/tx_bytes"


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds in all, and for each host its module runs and bytes, both ways."""

    seconds: float
    module_runs: float
    kilobytes: float


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def play(inventory: Path, words: list[str], limit: list[str]) -> None:
    """One run of ansible-playbook, which has to end well."""
    command = ["ansible-playbook", "-i", str(inventory), "--limit", ",".join(limit), *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(words)} failed: {done.stdout.strip()[-600:]}")


def transferred(guest: Guest) -> int:
    """Bytes that the guest has sent and received since it was booted."""
    return sum(map(int, guest.run(COUNTERS).split()))


def of_all(reading: Callable[[Guest], int], on: list[Guest]) -> int:
    """The sum over guests, which are asked side by side."""
    with ThreadPoolExecutor(len(on)) as pool:
        return sum(pool.map(reading, on))


def cost(run: Callable[[], None], on: list[Guest]) -> Cost:
    """What one run costs."""
    modules = of_all(module_runs, on)
    before = of_all(transferred, on)
    reading = of_all(transferred, on) - before  # one look, and the agents' polls meanwhile
    started = time.monotonic()
    run()
    seconds = time.monotonic() - started
    sent = of_all(transferred, on) - before - 2 * reading
    modules = of_all(module_runs, on) - modules
    return Cost(seconds, modules / len(on), sent / len(on) / 1000)


def measure(inventory: Path, on: list[Guest], rounds: int) -> dict[str, list[Cost]]:
    """Each run in turns, on some guests."""
    limit = [guest.name for guest in on]
    found: dict[str, list[Cost]] = {name: [] for name in RUNS}
    for number in range(rounds):
        for name, words in RUNS.items():
            run = cost(lambda words=words: play(inventory, words, limit), on)  # type: ignore[misc]
            found[name].append(run)
            say(
                f"{len(on)} hosts, round {number + 1}: {name}: {run.seconds:.1f} s; a host "
                f"{run.module_runs:.0f} module runs, {run.kilobytes:.0f} kB"
            )
    return found


def table(results: dict[int, dict[str, list[Cost]]]) -> str:
    """Medians, and the ratio of each of ours to the ordinary run after it."""
    lines = [
        "| hosts | run | seconds | of the ordinary agent's | module runs a host | kB a host |",
        "|---|---|---|---|---|---|",
    ]
    for count, runs in results.items():
        peers = {"rollout": "ordinary agent", "compliance": "ordinary agent, --check"}
        for name, costs in runs.items():
            ratio = ""
            if name in peers:
                pairs = zip(costs, runs[peers[name]])
                ratio = f"{statistics.median(a.seconds / b.seconds for a, b in pairs):.2f}"
            seconds = statistics.median(one.seconds for one in costs)
            modules = statistics.median(one.module_runs for one in costs)
            sent = statistics.median(one.kilobytes for one in costs)
            cells = (str(count), name, f"{seconds:.1f}", ratio, f"{modules:.0f}", f"{sent:.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def growth_table(found: dict[int, dict[str, float]]) -> str:
    """Seconds, and seconds a host."""
    lines = ["| local hosts | compliance | a host | one ping each | ratio |", "|---" * 5 + "|"]
    for count, seconds in found.items():
        ours, peer = seconds["compliance"], seconds["ping"]
        cells = (f"{ours:.1f} s", f"{ours / count:.2f} s", f"{peer:.1f} s", f"{ours / peer:.2f}")
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--local", type=int, nargs="+", default=[1, 10, 100], metavar="HOSTS")
    parser.add_argument(
        "--guests", type=int, nargs="+", default=[1, 3], choices=[1, 3], help="hosts of a run"
    )
    parser.add_argument("--keep", action="store_true", help="leave the guests running")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    host = machine.of_host()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            grown = growth.measure(folder, options.local)
            say(f"compliance on the local connection is done: {grown}")
            booted = guests.start([find_host(name) for name in HOSTS], STATE, say)
            running = [Guest(qemu.running_guests(STATE)[name], booted) for name in HOSTS]
            with service.running(folder / "service", list(HOSTS)) as variables:
                inventory = folder / "inventory"
                service.write_inventory(inventory, booted, variables)
                for words in (RUNS["rollout"], RUNS["ordinary agent"]):
                    say(f"{words[0]}: whatever there is to do")
                    play(inventory, words, list(HOSTS))
                results = {
                    len(on): measure(inventory, on, options.rounds)
                    for on in (running[1:2], running)
                    if len(on) in options.guests
                }
    except (BenchError, LabError) as error:
        say(str(error))
        return 1
    finally:
        if not options.keep:
            guests.stop([], STATE, say)
    costs = {
        count: {name: [asdict(one) for one in costs] for name, costs in runs.items()}
        for count, runs in results.items()
    }
    data = {"host": host, "runs": costs, "growth": grown}
    (OUT / "fleet.json").write_text(json.dumps(data, indent=1) + "\n")
    text = f"{table(results)}\n{growth_table(grown)}"
    (OUT / "fleet.md").write_text(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
