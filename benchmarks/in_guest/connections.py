# SPDX-License-Identifier: GPL-3.0-or-later
"""What watching costs those who make connections: no tracker, ours by tier, and `conntrack -E`."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from btfleet._config import status
from btfleet._kernel.conntrack.layout import LIVE

from benchmarks.in_guest import (
    connection_makers,
    masquerade,
    tiers,
    timing,
    translated_flows,
)

EVENTS_FILE = Path("/root/btfleet-bench/events")


@contextlib.contextmanager
def nobody() -> Iterator[Callable[[], int]]:
    """Without a tracker, as it is before."""
    tiers.unload()
    yield lambda: 0


@contextlib.contextmanager
def tracker(tier: str) -> Iterator[Callable[[], int]]:
    """With ours; the flows in the map."""
    tiers.load(tier)
    yield lambda: status.read().maps[LIVE]["entries"] // 2


@contextlib.contextmanager
def events() -> Iterator[Callable[[], int]]:
    """With a listener to conntrack's events; the new flows that it was told of."""
    tiers.unload()
    words = ["conntrack", "-E", "-e", "NEW,DESTROY"]
    with EVENTS_FILE.open("wb") as sink:
        process = subprocess.Popen(words, stdout=sink, stderr=subprocess.DEVNULL)
    time.sleep(1)  # until it listens

    def seen() -> int:
        size = -1
        while size != EVENTS_FILE.stat().st_size:  # until it has caught up
            size = EVENTS_FILE.stat().st_size
            time.sleep(0.5)
        return EVENTS_FILE.read_bytes().count(b"[NEW]")

    try:
        yield seen
    finally:
        process.terminate()
        process.wait()


WATCHERS: dict[str, Callable[[], contextlib.AbstractContextManager[Callable[[], int]]]] = {
    "nobody": nobody,
    "kprobe": lambda: tracker(tiers.KPROBE),
    "fentry": lambda: tracker(tiers.FENTRY),
    "conntrack -E": events,
}


def one_round(name: str, flows: int, connections: int) -> dict[str, float]:
    """Seconds, and shares of what there was that was seen."""
    translated_flows.flush()
    with WATCHERS[name]() as seen:
        found = {"udp": connection_makers.udp(flows)}
        size = translated_flows.table_size()
        if size < flows:
            raise RuntimeError(f"{size} of {flows} flows are in the table")
        found["seen"] = seen() / flows
        found["flush"] = timing.seconds(translated_flows.flush)
        found["tcp"] = connection_makers.tcp(connections)
    return found


def measure(rounds: int, flows: int, connections: int) -> timing.Series:
    """Seconds."""
    found: timing.Series = {}
    with masquerade.built(), connection_makers.tcp_server():
        for number in range(rounds + 1):
            for name in WATCHERS:
                for what, value in one_round(name, flows, connections).items():
                    if number:  # the first is to warm up
                        found.setdefault(f"{what}, {name}", []).append(value)
    tiers.load()
    return found


if __name__ == "__main__":
    timing.answer(
        lambda options: measure(options["rounds"], options["flows"], options["connections"])
    )
