# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds from a publish until the host's agent has asked its loader for it.

Publisher, config service and agent are the real ones, on one machine; no kernel is loaded. Most of
the time is spent waiting for the service's next refresh and the agent's next poll, so the means of
these waits are given beside it, and a second figure without the first of them: the service is told
to refresh, as the playbook can.
"""

from __future__ import annotations

import hashlib
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from btfleet._config import remote
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store
from btfleet.service.daemon import Daemon

from benchmarks.remote_config import fleet
from lab.paths import CHECKOUT
from tests.unit.service.certificates import Authority

REFRESH, POLL = 5, 1
HOST = fleet.host(0)
LONGEST = 120.0


def measure(folder: Path, publishes: int) -> dict[str, Any]:
    """All figures, in seconds."""
    # The publisher is a part of the collection, and is found by its name
    sys.path.append(str(CHECKOUT / "build" / "collections"))
    from tests.unit.publisher.places import Place, config  # noqa: PLC0415

    place = Place(folder / "place")
    place.converge()
    for name in ("director", "config"):
        (folder / f"{name}-root.json").write_bytes(place.first_root(name))
    waited: dict[bool, list[float]] = {False: [], True: []}
    took: list[float] = []
    with _service(folder, place.root) as daemon, _agent(folder, daemon.port) as wanted:
        for number in range(2 * publishes):
            is_told = bool(number % 2)
            size = 4096 + number
            time.sleep(random.uniform(0, REFRESH))  # noqa: S311 at any point between two refreshes
            started = time.perf_counter()
            place.publish(config(content={"max_entries": size}))
            published = time.perf_counter()
            if is_told:
                daemon.refresh_now()
            _wait_for(wanted, size)
            waited[is_told].append(time.perf_counter() - published)
            took.append(published - started)
    return {
        "refresh_interval_seconds": REFRESH,
        "poll_interval_seconds": POLL,
        "publish_seconds": statistics.median(took),
        "published_to_asked_seconds": waited[False],
        "mean_waits_seconds": REFRESH / 2 + POLL / 2,
        "told_to_asked_seconds": waited[True],
        "mean_waits_told_seconds": POLL / 2,
    }


@contextmanager
def _service(folder: Path, repository: Path) -> Iterator[Daemon]:
    authority = Authority()
    authority.write(folder / "service.pem", folder / "service.key")
    (folder / "ca.pem").write_bytes(authority.certificate)
    hashed = hashlib.sha256(fleet.token(0).encode()).hexdigest()
    (folder / "tokens.json").write_text(json.dumps({"hosts": {HOST: [hashed]}}))
    settings = replace(
        fleet.settings(folder), repository=str(repository), refresh_interval_seconds=REFRESH
    )
    daemon = Daemon(settings)
    with daemon.running():
        yield daemon


@contextmanager
def _agent(folder: Path, port: int) -> Iterator[Store]:
    state = folder / "agent"
    state.mkdir()
    (folder / "token").write_text(fleet.token(0))
    settings = {
        "host": HOST,
        "service": f"localhost:{port}",
        "ca": str(folder / "ca.pem"),
        "token_file": str(folder / "token"),
        "director_root": str(folder / "director-root.json"),
        "metrics_listen": "",
        "socket": str(folder / "agent.sock"),
        "state_folder": str(state),
        "poll_interval_seconds": POLL,
    }
    store = Store(
        spec_path=str(folder / "spec.json"),
        wanted_path=str(state / "wanted.json"),
        applied_path=str(folder / "applied.json"),
    )
    store.write_spec(Spec("a" * 64))
    remote.write_allowed(store, ["CONNTRACK.max_entries"])
    (folder / "agent.json").write_text(json.dumps(settings))
    process = subprocess.Popen([sys.executable, "-c", _RUN, *_words(folder)])
    try:
        yield store
    finally:
        process.terminate()
        process.wait()


# The agent as it is, but for the places of spec and allowed keys, which no setting names
_RUN = """
import sys
from btfleet._kernel.store import Store
from btfleet.poller.agent import Agent
from btfleet.poller.settings import load
settings, spec, wanted, applied = sys.argv[1:]
store = Store(spec_path=spec, wanted_path=wanted, applied_path=applied)
Agent(load(settings), store).run(lambda: None, lambda: None)
"""


def _words(folder: Path) -> list[str]:
    names = ("agent.json", "spec.json", "agent/wanted.json", "applied.json")
    return [str(folder / name) for name in names]


def _wait_for(store: Store, size: int) -> None:
    """Until the loader is asked for it; a file is looked at each 5 ms."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        wanted = remote.read_wanted(store)
        if wanted and wanted.settings.get("max_entries") == size:
            return
        time.sleep(0.005)
    raise SystemExit(f"remote_config: the agent has not asked for it within {LONGEST:.0f} s")
