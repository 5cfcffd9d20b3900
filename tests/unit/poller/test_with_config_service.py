# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent against the config service itself: both are ours, and have to mean the same."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.poller.agent import Agent
from btfleet.service.daemon import Daemon
from btfleet.service.settings import Roots, Settings, Tls

from tests.unit.poller.conftest import Deployed, eventually
from tests.unit.poller.crafted_service import CraftedService
from tests.unit.poller.director import Director
from tests.unit.service.simulator import Simulator, path_of

FIRST = path_of("first")
FOR_B = path_of("for-b")


@dataclass
class World:
    """A publisher, its service, and a host."""

    host: Deployed
    simulator: Simulator
    daemon: Daemon

    def publish(self) -> None:
        self.simulator.publish()
        self.daemon.refresher.refresh()

    def agent(self, **changes: object) -> Agent:
        changes.setdefault("service", f"localhost:{self.daemon.port}")
        return self.host.agent(**changes)


@pytest.fixture
def world(tmp_path: Path, director: Director) -> Iterator[World]:
    """With one config for everybody published, and the service refreshed."""
    simulator = Simulator(tmp_path / "repository")
    simulator.put(FIRST, {"udpv6_enabled": False})
    simulator.write()
    crafted = CraftedService(lambda _request, _context: pb.ClientGetConfigsResponse())
    host = Deployed(tmp_path, crafted, time.time())
    host.deploy(director)
    (tmp_path / "etc/root.json").write_bytes(simulator.director.roots[1])
    (tmp_path / "config-root.json").write_bytes(simulator.config.roots[1])
    tls = Tls(str(tmp_path / "service.pem"), str(tmp_path / "service.key"))
    crafted.authority.write(Path(tls.certificate), Path(tls.key))
    digest = hashlib.sha256(crafted.token.encode()).hexdigest()
    (tmp_path / "tokens.json").write_text(json.dumps({"hosts": {"gw1": [digest]}, "operators": {}}))
    settings = Settings(
        repository=str(simulator.folder),
        roots=Roots(str(tmp_path / "etc/root.json"), str(tmp_path / "config-root.json")),
        tls=tls,
        listen="127.0.0.1:0",
        metrics_listen="",
        tokens=str(tmp_path / "tokens.json"),
        state_folder=str(tmp_path / "service"),
        suggested_interval_seconds=7,
    )
    daemon = Daemon(settings)
    with daemon.running(), host.stack:
        taken = {"result": "changed"}
        name = "btfleet_config_service_refreshes_total"
        eventually(lambda: daemon.metrics.registry.get_sample_value(name, taken), "a refresh")
        yield World(host, simulator, daemon)


def names(agent: Agent) -> set[str]:
    return set(verify.in_force(agent.trusted, int(time.time())))


def test_what_is_published_for_a_label_arrives_there_only(world: World) -> None:
    world.simulator.put(FOR_B, {"max_entries": 4096}, predicates=[{"labels": {"site": "b"}}])
    world.publish()
    agent = world.agent()
    assert agent.poll().suggested_interval == 7
    assert names(agent) == {FIRST, FOR_B}
    agent.poll()
    assert names(agent) == {FIRST, FOR_B}
    agent.close()
    other = world.agent(labels={"site": "a"})
    other.poll()
    assert names(other) == {FIRST}


def test_a_host_that_changes_its_labels_is_filled_anew_without_anything_published(
    world: World,
) -> None:
    world.simulator.put(FOR_B, {"max_entries": 4096}, predicates=[{"group": "core"}])
    world.publish()
    agent = world.agent()
    agent.poll()
    assert names(agent) == {FIRST}
    agent.close()
    moved = world.agent(groups=("core",))
    moved.poll()
    assert names(moved) == {FIRST, FOR_B}


def test_a_withdrawn_config_goes_and_a_changed_one_is_replaced(world: World) -> None:
    agent = world.agent()
    agent.poll()
    world.simulator.put(FIRST, {"udpv6_enabled": True}, version=2)
    world.publish()
    agent.poll()
    assert (agent.trusted.configs[FIRST].version, names(agent)) == (2, {FIRST})
    world.simulator.remove(FIRST)
    world.publish()
    agent.poll()
    assert names(agent) == set()


def test_all_keys_may_be_rotated_between_two_polls(world: World) -> None:
    agent = world.agent()
    agent.poll()
    for repository in world.simulator.repositories.values():
        repository.rotate("root", "targets", "snapshot", "timestamp")
        repository.rotate("root")
    world.publish()
    agent.poll()
    assert (agent.trusted.root_version, names(agent)) == (3, {FIRST})


def test_what_the_agent_reports_is_what_the_service_knows(world: World) -> None:
    agent = world.agent()
    agent.poll()
    agent.poll()
    (client,) = world.daemon.clients.live(time.time())
    assert (client.id, client.state.targets_version) == ("gw1", 1)
    assert [one.path for one in client.state.config_states] == [FIRST]


def test_another_hosts_token_is_refused_and_said_so(world: World) -> None:
    agent = world.agent(host="gw2")
    agent.loop._poll_once()
    assert "is not that of gw2" in agent.loop.stats.error
    assert agent.loop.stats.failures == {"token": 1}
