# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new flow and its end cost the host: without a tracker, with ours, with `conntrack -E`."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.in_guest import masquerade, tracker, translated_flows, udp_flows
from benchmarks.in_guest.counting import Figures, busy, processor_time

EVENTS_FILE = Path(__file__).with_name("events")
EVENTS = ("conntrack", "-E", "-e", "NEW,DESTROY", "-b", "8388608")


class Watcher:
    """Who watches: nobody, or programs in the kernel."""

    def cost(self, action: Callable[[], int]) -> int:
        """Return the ns of what happens, watching included."""
        return action()

    def seen(self) -> int | None:
        """Return how many flows were seen until now, None where nobody looks."""
        return None


class Tracker(Watcher):
    """Ours."""

    def seen(self) -> int:
        """Return how many flows live in the map."""
        return tracker.live_entries() // 2


class Listener(Watcher):
    """`conntrack -E`: a process that may fall behind, and has to catch up before it is counted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cost(self, action: Callable[[], int]) -> int:
        """Return the ns of what happens and of all that the listener then has to do."""
        taken = action()
        until_now = processor_time(self.pid)
        self.catch_up()
        return taken + processor_time(self.pid) - until_now

    def catch_up(self) -> None:
        """Wait until it has nothing left to do."""
        before = -1
        while before != (now := processor_time(self.pid)):
            before = now
            time.sleep(0.5)

    def seen(self) -> int:
        """Return how many new flows it was told of until now."""
        return EVENTS_FILE.read_bytes().count(b"[NEW]")


@contextlib.contextmanager
def nobody() -> Iterator[Watcher]:
    """Without a tracker."""
    tracker.unload()
    yield Watcher()


@contextlib.contextmanager
def ours(tier: str) -> Iterator[Watcher]:
    """With our tracker in this tier."""
    tracker.load(tier)
    yield Tracker()


@contextlib.contextmanager
def listener() -> Iterator[Watcher]:
    """With a listener to conntrack's events."""
    tracker.unload()
    with (
        EVENTS_FILE.open("wb") as sink,
        subprocess.Popen(EVENTS, stdout=sink, stderr=subprocess.DEVNULL) as process,
    ):
        found = Listener(process.pid)
        found.catch_up()  # until it listens
        try:
            yield found
        finally:
            process.terminate()
    EVENTS_FILE.unlink()


WATCHERS: dict[str, Callable[[], contextlib.AbstractContextManager[Watcher]]] = {
    "nobody": nobody,
    "kprobe": lambda: ours(tracker.KPROBE),
    "fentry": lambda: ours(tracker.FENTRY),
    "conntrack -E": listener,
}


def flush() -> int:
    """Return the ns of ending all flows, less those of an empty table's flush."""
    with_flows = busy(translated_flows.flush)
    return with_flows - busy(translated_flows.flush)


def one_round(watcher: Watcher, flows: int) -> tuple[float, float]:
    """Return the ns per flow: of its first packet, and of its end."""
    translated_flows.flush()
    before = watcher.seen()
    new = watcher.cost(lambda: udp_flows.send(flows))
    size, after = translated_flows.table_size(), watcher.seen()
    counted = flows if before is None or after is None else after - before
    # A packet may be lost on its way, and a flow of the host itself be among them
    if min(size, counted) < flows * 0.99:
        raise RuntimeError(f"of {flows} flows {size} are in the table, seen: {before} to {after}")
    return new / flows, watcher.cost(flush) / flows


def measure(flows: int) -> Figures:
    """Return ns per flow, by who watches."""
    found: Figures = {}
    with masquerade.built():
        for name, watched in WATCHERS.items():
            with watched() as watcher:
                one_round(watcher, flows)  # to warm up
                found[f"new, {name}"], found[f"end, {name}"] = one_round(watcher, flows)
    return found
