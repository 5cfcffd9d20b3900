# SPDX-License-Identifier: GPL-3.0-or-later
"""Places to publish to. Making keys takes a moment, so a made place is copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import generations

from tests.unit.publisher.places import Client, Place, client_of, served


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody cuts the power in here; what is killed (test_kills.py) does wait."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(generations, "_sync", lambda _folder: None)


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """Nothing is there yet."""
    return Place(tmp_path / "place")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("made"))
    place.converge()
    return place.folder


@pytest.fixture
def place(tmp_path: Path, made_once: Path) -> Place:
    """Both repositories, without a config."""
    shutil.copytree(made_once, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


@pytest.fixture
def client(place: Place, tmp_path: Path) -> Iterator[Client]:
    """A client of that place, over HTTP."""
    with served(place.root) as url:
        yield client_of(place, url, tmp_path / "client")
