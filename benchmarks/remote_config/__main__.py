# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks.remote_config`: measures, writes build/bench/remote_config.{json,md}."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.remote_config import applied, refresh
from lab.paths import DEFAULT_STATE

OUT = DEFAULT_STATE.with_name("bench")
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, LOAD_CPU = CPUS[0], CPUS[-1]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int
    seconds: float
    hosts: int
    targets: tuple[int, ...]
    publishes: int


FULL = Sizes(rounds=5, seconds=4.0, hosts=10000, targets=(10, 1000, 10000), publishes=10)
QUICK = Sizes(rounds=2, seconds=1.0, hosts=500, targets=(10, 100), publishes=2)


@dataclass(frozen=True)
class Rate:
    """Polls a second, and the server's CPU time for one of them."""

    polls_per_second: float
    cpu_us: float


class Server:
    """A server process."""

    def __init__(self, kind: str, folder: Path, configs: int, hosts: int) -> None:
        self.folder = folder
        folder.mkdir()
        words = [kind, str(folder), str(configs), str(hosts), str(SERVER_CPU)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.remote_config.server", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read())

    def _read(self) -> str:
        assert self._process.stdout  # noqa: S101
        return self._process.stdout.readline()

    def usage(self) -> tuple[float, int]:
        """CPU seconds so far, and resident kB."""
        assert self._process.stdin  # noqa: S101
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu, resident = self._read().split()
        return float(cpu), int(resident)

    def load(self, kind: str, hosts: int, seconds: float) -> Rate:
        """One run of polls."""
        before, _resident = self.usage()
        words = [self.port, self.folder / "ca.pem", hosts, seconds, kind, LOAD_CPU]
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.remote_config.load", *map(str, words)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        polls, took = map(float, output.split())
        cpu = self.usage()[0] - before
        return Rate(polls / took, cpu / polls * 1e6)

    def stop(self) -> None:
        """Ends it."""
        assert self._process.stdin  # noqa: S101
        self._process.stdin.close()
        self._process.wait()


def measure_polls(folder: Path, sizes: Sizes) -> dict[str, list[Rate]]:
    """Rounds of ours and of the empty handler, by turns, so that a busy machine troubles both."""
    ours = Server("ours", folder / "ours", 1000, sizes.hosts)
    empty = Server("empty", folder / "empty", 0, 0)
    kinds = {"empty handler": (empty, "same"), "same": (ours, "same"), "news": (ours, "news")}
    found: dict[str, list[Rate]] = {name: [] for name in kinds}
    ours.load("once", sizes.hosts, 0)
    for _round in range(sizes.rounds):
        for name, (server, kind) in kinds.items():
            found[name].append(server.load(kind, min(sizes.hosts, 2000), sizes.seconds))
    ours.stop()
    empty.stop()
    return found


def measure_memory(folder: Path, hosts: int) -> float:
    """kB that the first poll of `hosts` hosts adds, for 10,000 of them."""
    server = Server("ours", folder / "memory", 1000, hosts + 200)
    server.load("once", 200, 0)  # connections, threads and caches
    before = server.usage()[1]
    server.load("once", hosts + 200, 0)
    grown = server.usage()[1] - before
    server.stop()
    return grown / hosts * 10000


def table(
    polls: dict[str, list[Rate]],
    memory: float,
    refreshes: dict[int, dict[str, float]],
    way: dict[str, Any],
) -> str:
    """All of it in Markdown."""
    floor = polls["empty handler"]
    lines = [
        "| polls of an up-to-date fleet | polls/s | of the empty handler | CPU a poll | of it |",
        "|---|---|---|---|---|",
    ]
    titles = {
        "empty handler": "empty handler",
        "same": "hosts say what they said before",
        "news": "something new in each poll",
    }
    for name, title in titles.items():
        rates = polls[name]
        share = statistics.median(
            mine.polls_per_second / theirs.polls_per_second for mine, theirs in zip(rates, floor)
        )
        cpu = statistics.median(mine.cpu_us / theirs.cpu_us for mine, theirs in zip(rates, floor))
        rate = statistics.median(each.polls_per_second for each in rates)
        each_us = statistics.median(each.cpu_us for each in rates)
        lines.append(f"| {title} | {rate:.0f} | {share:.0%} | {each_us:.0f} us | {cpu:.2f} |")
    lines += ["", f"Memory per 10,000 known clients: {memory / 1024:.1f} MB.", ""]
    lines += ["| targets | first refresh | one changed | unchanged |", "|---|---|---|---|"]
    for targets, found in refreshes.items():
        cells = " | ".join(
            f"{found[kind] * 1000:.0f} ms" for kind in ("first", "one changed", "unchanged")
        )
        lines.append(f"| {targets:,} | {cells} |")
    lines += ["", *_way(way)]
    return "\n".join(lines) + "\n"


def _way(way: dict[str, Any]) -> list[str]:
    """From a publish to the request to the loader."""
    intervals = (
        f"refresh each {way['refresh_interval_seconds']} s, poll each "
        f"{way['poll_interval_seconds']} s"
    )
    rows = [
        (intervals, "published_to_asked_seconds", "mean_waits_seconds"),
        ("the service is told to refresh", "told_to_asked_seconds", "mean_waits_told_seconds"),
    ]
    title = f"from publish (itself {way['publish_seconds']:.2f} s) to the request to the loader"
    return [
        f"| {title} | median | largest | mean of the waits in it |",
        "|---|---|---|---|",
        *(
            f"| {name} | {statistics.median(way[key]):.2f} s | {max(way[key]):.2f} s "
            f"| {way[waits]:.2f} s |"
            for name, key, waits in rows
        ),
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote_config", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    sizes = QUICK if parser.parse_args().quick else FULL
    OUT.mkdir(parents=True, exist_ok=True)
    host = machine.of_host()
    with tempfile.TemporaryDirectory(prefix="btfleet-bench-") as name:
        folder = Path(name)
        polls = measure_polls(folder, sizes)
        memory = measure_memory(folder, sizes.hosts)
        refreshes = {
            targets: refresh.measure(folder / f"refresh-{targets}", targets)
            for targets in sizes.targets
        }
        (folder / "applied").mkdir()
        way = applied.measure(folder / "applied", sizes.publishes)
    text = table(polls, memory, refreshes, way)
    data = {
        "host": host,
        "sizes": vars(sizes),
        "polls": {kind: [vars(rate) for rate in rates] for kind, rates in polls.items()},
        "memory_kb_per_10000_clients": memory,
        "refreshes": refreshes,
        "publish_to_asked": way,
    }
    (OUT / "remote_config.json").write_text(json.dumps(data, indent=1) + "\n")
    (OUT / "remote_config.md").write_text(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
