# SPDX-License-Identifier: GPL-3.0-or-later
"""Two repositories, the same in every process, and a service that takes from them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from btfleet.service.refresh import Refresher, read_anchors
from btfleet.service.settings import Roots, Settings, Tls
from btfleet.service.store import Store

from tests.fuzz.signed import fixed_keys
from tests.unit.service.simulator import Simulator, path_of

NEVER = datetime(2100, 1, 1, tzinfo=timezone.utc)


def simulator(folder: Path) -> Simulator:
    """Three configs, for one host, for a group, for a label; two roots of the director."""
    with fixed_keys():
        made = Simulator(folder)
        for repository in made.repositories.values():
            for metadata in (repository.timestamp, repository.snapshot, repository.targets):
                metadata.signed.expires = NEVER
            repository.root.signed.expires = NEVER
            repository.sign_root([])
        made.director.rotate("timestamp")
    made.put(path_of("first"), {"udpv6_enabled": False}, predicates=[{"host": "h1"}])
    made.put(path_of("second"), {"max_entries": 4096}, predicates=[{"group": "edge"}])
    made.put(path_of("third", "AGENT"), {}, predicates=[{"labels": {"site": "b"}}], expires=2**40)
    made.write()
    return made


def memory() -> Path:
    """A folder that costs no disk, and goes with the process (libFuzzer's with the machine)."""
    folder = tempfile.mkdtemp(dir="/dev/shm", prefix="btfleet-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def refresher(made: Simulator, folder: Path) -> Refresher:
    """Of a service that has refreshed once."""
    for name, repository in made.repositories.items():
        (folder / f"{name}-root.json").write_bytes(repository.roots[1])
    settings = Settings(
        repository=str(made.folder),
        roots=Roots(str(folder / "director-root.json"), str(folder / "config-root.json")),
        tls=Tls("", ""),
        listen="127.0.0.1:0",
        metrics_listen="",
        tokens=str(folder / "tokens.json"),
        state_folder=str(folder / "state"),
    )
    store = Store(settings.state_folder)
    found = Refresher(settings, store, read_anchors(settings))
    found.refresh()
    store.close()
    return found
