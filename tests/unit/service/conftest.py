# SPDX-License-Identifier: GPL-3.0-or-later
"""A simulated publisher, and a refresher that takes from it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from btfleet.service.fetch import Limits
from btfleet.service.refresh import Refresher, read_anchors
from btfleet.service.settings import Roots, Settings, Tls
from btfleet.service.store import Store

from tests.unit.service.simulator import Simulator, path_of


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: these tests write thousands of files, and none of them is about the disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory, prefix="btfleet-") as folder:
        yield Path(folder)


@pytest.fixture
def simulator(tmp_path: Path) -> Simulator:
    """One config, published."""
    found = Simulator(tmp_path / "repository")
    found.put(path_of("first"), {"udpv6_enabled": False})
    found.write()
    return found


@pytest.fixture
def settings(simulator: Simulator, tmp_path: Path) -> Settings:
    """Of a service that takes from the simulator; its TLS files are not there."""
    for name, repository in simulator.repositories.items():
        (tmp_path / f"{name}-root.json").write_bytes(repository.roots[1])
    return Settings(
        repository=str(simulator.folder),
        roots=Roots(str(tmp_path / "director-root.json"), str(tmp_path / "config-root.json")),
        tls=Tls(str(tmp_path / "service.pem"), str(tmp_path / "service.key")),
        listen="127.0.0.1:0",
        metrics_listen="",
        tokens=str(tmp_path / "tokens.json"),
        state_folder=str(tmp_path / "state"),
    )


class Opener:
    """Opens the store and makes a refresher, as a start of the service does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.said: list[str] = []
        self.store: Store | None = None

    def __call__(self, limits: Limits = Limits()) -> Refresher:  # noqa: B008
        self.close()
        self.store = Store(self.settings.state_folder, self.said.append)
        return Refresher(self.settings, self.store, read_anchors(self.settings), limits)

    def close(self) -> None:
        """As when the process has ended."""
        if self.store:
            self.store.close()
            self.store = None


@pytest.fixture
def opened(settings: Settings) -> Iterator[Opener]:
    """Makes refreshers, each of them a restart of the one before."""
    opener = Opener(settings)
    yield opener
    opener.close()


@pytest.fixture
def refresher(opened: Callable[[], Refresher]) -> Refresher:
    """One that has refreshed once."""
    found = opened()
    assert found.refresh()
    return found
