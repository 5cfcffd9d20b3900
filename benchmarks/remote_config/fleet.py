# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet that is not there: its tokens, its requests, and what is published for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from btfleet.config.v1.config_pb2 import (
    APPLY_PHASE_APPLIED,
    Client,
    ClientGetConfigsRequest,
    ConfigState,
    EffectiveValue,
)
from btfleet.service.settings import Roots, Settings, Tls

from tests.unit.service.certificates import Authority
from tests.unit.service.simulator import Simulator, path_of

METHOD = "/btfleet.config.v1.ConfigService/ClientGetConfigs"
CONFIGS = 4


def host(number: int) -> str:
    """A host's name."""
    return f"host-{number:05}.example.org"


def token(number: int) -> str:
    """Its token, as long as a real one."""
    return hashlib.sha256(f"token {number}".encode()).hexdigest()[:43]


def request(number: int, targets_version: int, note: str = "") -> bytes:
    """What an agent with four configs says each time: about 0.8 kB."""
    client = Client(
        id=host(number),
        products=["CONNTRACK", "AGENT"],
        is_agent=True,
        groups=["gateways", "edge"],
        labels={"site": "paris", "rack": f"r{number % 40}"},
    )
    client.client_agent.version = "0.1.0"
    client.state.root_version = 1
    client.state.targets_version = targets_version
    for index in range(CONFIGS):
        path = path_of(f"config-{index}")
        client.state.config_states.append(
            ConfigState(
                id="all",
                version=1,
                product="CONNTRACK",
                apply_state=2,
                path=path,
                apply_phase=APPLY_PHASE_APPLIED,
                changed_at=1750000000,
            )
        )
        client.effective.append(
            EffectiveValue(key=f"CONNTRACK.key_{index}", value="131072", owner=path)
        )
    client.health.healthy = True
    client.health.status = note
    found = ClientGetConfigsRequest(client=client)
    for index in range(2):
        cached = found.cached_target_files.add(path=path_of(f"config-{index}"), length=22)
        cached.hashes.add(algorithm="sha256", hash="ab" * 32)
    return found.SerializeToString()


def publish(simulator: Simulator, count: int) -> None:
    """So many configs, each for one host but for a few."""
    for index in range(count):
        predicates = [] if index < CONFIGS else [{"host": host(index)}]
        path, settings = path_of(f"config-{index}"), {"max_entries": 1024 + index}
        simulator.put(path, settings, predicates=predicates)
    simulator.write()


def prepare(folder: Path, configs: int, hosts: int) -> Settings:
    """All that a service needs, in a folder."""
    simulator = Simulator(folder / "repository")
    publish(simulator, configs)
    for name, repository in simulator.repositories.items():
        (folder / f"{name}-root.json").write_bytes(repository.roots[1])
    authority = Authority()
    authority.write(folder / "service.pem", folder / "service.key")
    (folder / "ca.pem").write_bytes(authority.certificate)
    hashes = {host(n): [hashlib.sha256(token(n).encode()).hexdigest()] for n in range(hosts)}
    (folder / "tokens.json").write_text(json.dumps({"hosts": hashes}))
    return settings(folder)


def settings(folder: Path) -> Settings:
    """Of a service whose files are all in one folder."""
    return Settings(
        repository=str(folder / "repository"),
        roots=Roots(str(folder / "director-root.json"), str(folder / "config-root.json")),
        tls=Tls(str(folder / "service.pem"), str(folder / "service.key")),
        listen="127.0.0.1:0",
        metrics_listen="",
        tokens=str(folder / "tokens.json"),
        state_folder=str(folder / "state"),
        client_ttl_seconds=3600,
    )
