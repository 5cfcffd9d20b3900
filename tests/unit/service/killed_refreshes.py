# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills refreshes at random moments; says for each which generation the store holds afterwards.

A program of its own: it forks, which nobody should do among the threads of a test run.
Arguments: FOLDER COUNT SEED.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from pathlib import Path

from btfleet.service.fetch import Limits
from btfleet.service.generation import restore, verify
from btfleet.service.store import Store
from btfleet.service.update import update

from tests.unit.service.simulator import Simulator, path_of

CONFIGS = 20
ORG = 1


def publish(simulator: Simulator, version: int) -> None:
    """All configs say the version, so that a mixture shows."""
    for number in range(CONFIGS):
        content = {"max_entries": 1024 + version}
        simulator.put(path_of(f"c{number}"), content, version=version)
    if version % 3 == 0:
        simulator.director.rotate("timestamp", "snapshot")
    simulator.publish()


def refresh(simulator: Simulator, state: Path) -> None:
    """One refresh, as the service does it."""
    store = Store(str(state))
    anchors = {name: each.roots[1] for name, each in simulator.repositories.items()}
    generation = update(
        str(simulator.folder), None, anchors, store.load(), store.staging, ORG, Limits()
    )
    if generation:
        store.commit(generation)
    store.close()


def stored(state: Path) -> int:
    """The version that the store holds, verified; exits if it is damaged or a mixture."""
    damage: list[str] = []
    store = Store(str(state), damage.append)
    found = store.load()
    generation = restore(found, verify(found), ORG)
    versions = {target.custom.version for target in generation.targets}
    contents = set(generation.files.values())
    store.close()
    if damage or len(versions) != 1 or len(contents) != 1:
        sys.exit(f"damaged or mixed: {damage} {versions} {contents}")
    return versions.pop()


def calls_of(simulator: Simulator, state: Path, kill_at: float = math.inf) -> int:
    """Refreshes, and kills this process at that function call; returns how many there were."""
    calls = 0

    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    refresh(simulator, state)
    sys.setprofile(None)
    return calls


def main() -> None:
    """Prints the version that was published, that was there before, and after, for each kill."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)  # noqa: S311
    simulator, state = Simulator(folder / "repository"), folder / "state"
    publish(simulator, 1)
    refresh(simulator, state)
    publish(simulator, 2)
    started = time.monotonic()
    usual_calls = calls_of(simulator, state)
    usual_seconds = time.monotonic() - started
    for version in range(3, count + 3):
        publish(simulator, version)
        before = stored(state)
        # Now by the clock, which strikes inside of the database too, now at a call: anywhere, in
        # the commit at the end, or not at all
        by_clock = version % 3 == 0
        share = rng.choice([rng.uniform(0, 1), rng.uniform(0.97, 1), 1.5])
        child = os.fork()
        if child == 0:
            calls_of(simulator, state, math.inf if by_clock else usual_calls * share)
            os._exit(0)
        if by_clock:
            time.sleep(rng.uniform(0, usual_seconds))
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(version, before, stored(state))
    refresh(simulator, state)
    print("end", stored(state))


if __name__ == "__main__":
    main()
