# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds of a refresh by number of targets: the first one, one with a change, one without."""

from __future__ import annotations

import time
from pathlib import Path

from btfleet.service.refresh import Refresher, read_anchors
from btfleet.service.store import Store

from benchmarks.remote_config import fleet
from tests.unit.service.simulator import Simulator, path_of


def measure(folder: Path, targets: int) -> dict[str, float]:
    """The three durations."""
    folder.mkdir()
    settings = fleet.prepare(folder, 0, 1)
    simulator = Simulator(folder / "other")
    fleet.publish(simulator, targets)
    for name, repository in simulator.repositories.items():
        (folder / f"{name}-root.json").write_bytes(repository.roots[1])
    (folder / "repository").rename(folder / "unused")
    (folder / "other").rename(folder / "repository")
    simulator.folder = folder / "repository"
    store = Store(settings.state_folder)
    refresher = Refresher(settings, store, read_anchors(settings))
    found = {"first": _timed(refresher)}
    simulator.put(path_of("config-0"), {"max_entries": 2048}, version=2)
    simulator.publish()
    found["one changed"] = _timed(refresher)
    found["unchanged"] = min(_timed(refresher) for _round in range(3))
    store.close()
    return found


def _timed(refresher: Refresher) -> float:
    started = time.perf_counter()
    refresher.refresh()
    return time.perf_counter() - started
