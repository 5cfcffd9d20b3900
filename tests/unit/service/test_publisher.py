# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection's own publisher writes is taken: changes, rotations, withdrawals."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet._config.predicates import HostFacts
from btfleet.service.fetch import FolderSource
from btfleet.service.poll import Poll
from btfleet.service.refresh import Refresher
from btfleet.service.settings import Settings

from tests.unit.publisher.places import Place, config, path_of
from tests.unit.service.conftest import Opener

PRODUCTS = frozenset(["CONNTRACK", "AGENT"])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two new repositories."""
    found = Place(tmp_path)
    found.converge()
    return found


@pytest.fixture
def settings(settings: Settings, place: Place) -> Settings:
    """The service's, with that publisher's folder and first roots."""
    for name, path in zip(("director", "config"), settings.roots):
        Path(path).write_bytes(place.first_root(name))
    return replace(settings, repository=str(place.root))


def paths(refresher: Refresher, host: str = "h1", site: str = "paris") -> list[str]:
    """What a host would get."""
    snapshot = refresher.snapshot
    assert snapshot
    facts = HostFacts(host, frozenset(), {"site": site})
    numbers = snapshot.select(facts, PRODUCTS)
    answer = snapshot.answer(Poll(facts, PRODUCTS, 1, 0, {}), time.time())
    assert answer[0] == "full"
    published = snapshot.published()
    return [published[number].path for number in numbers]


def versions(refresher: Refresher) -> dict[str, int]:
    assert refresher.snapshot
    return {each.path: each.version for each in refresher.snapshot.published()}


def test_new_repositories_without_configs_are_taken(opened: Opener) -> None:
    refresher = opened()
    assert refresher.refresh()
    assert paths(refresher) == []


def test_configs_come_change_and_go(place: Place, opened: Opener) -> None:
    refresher = opened()
    place.publish(config("x", predicates=[{"labels": {"site": "paris"}}]), config("y"))
    assert refresher.refresh()
    assert paths(refresher) == [path_of("x"), path_of("y")]
    assert paths(refresher, site="rome") == [path_of("y")]
    before = versions(refresher)
    place.publish(config("y", content={"max_entries": 4096}, expires="2100-01-01"))
    assert refresher.refresh()
    after = versions(refresher)
    assert after[path_of("x")] == before[path_of("x")]
    assert after[path_of("y")] > before[path_of("y")]
    place.publish({**config("x"), "state": "absent"})
    assert refresher.refresh()
    assert paths(refresher) == [path_of("y")]
    assert not refresher.refresh()


def test_every_role_may_be_rotated(place: Place, opened: Opener) -> None:
    place.publish(config())
    refresher = opened()
    refresher.refresh()
    for number, role in enumerate(("root", "targets", "snapshot", "timestamp")):
        rotate = (f"director.{role}", f"config.{role}")
        place.converge(rotate=rotate, rotation_id=str(number))
        assert refresher.refresh()
        assert paths(refresher) == [path_of()]
    assert refresher.snapshot
    assert refresher.snapshot.root_version == 5
    assert opened().snapshot  # what is stored verifies as well


def test_a_generation_is_read_while_the_next_ones_are_published(place: Place) -> None:
    source = FolderSource(str(place.root))
    place.publish(config())
    assert source.base.rstrip("/") != str(place.current.resolve())
    assert Path(source.base, "director", "timestamp.json").exists()
