# SPDX-License-Identifier: GPL-3.0-or-later
"""A director, a service that serves it, and what Ansible deploys on a host."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller.agent import Agent
from btfleet.poller.settings import Settings

from tests.unit.poller.crafted_service import CraftedService
from tests.unit.poller.director import NO_UDP6, NOW, Director, content

BASE = Spec("a" * 64)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: what is tested here is not the disk. And short, as a socket's path has to be."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory, prefix="btfleet-") as folder:
        yield Path(folder)


@pytest.fixture
def director() -> Director:
    """With one config for everybody."""
    made = Director()
    made.publish({NO_UDP6: content(udpv6_enabled=False)})
    return made


def honest(
    director: Director,
) -> Callable[[pb.ClientGetConfigsRequest, grpc.ServicerContext], pb.ClientGetConfigsResponse]:
    """Answers as the contract says."""

    def answer(
        request: pb.ClientGetConfigsRequest, _context: grpc.ServicerContext
    ) -> pb.ClientGetConfigsResponse:
        state = request.client.state
        have = (state.root_version, state.targets_version)
        if have == (len(director.roots), director.targets_version):
            return pb.ClientGetConfigsResponse()
        cached = {meta.path: meta.hashes[0].hash for meta in request.cached_target_files}
        whole = director.answer(have_root=state.root_version)
        files = [file for file in whole.target_files if cached.get(file.path) != _sha256(file.raw)]
        del whole.target_files[:]
        whole.target_files.extend(files)
        return whole

    return answer


def _sha256(raw: bytes) -> str:
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(raw).hexdigest()


@pytest.fixture
def service(director: Director) -> Iterator[CraftedService]:
    """Honest, and running."""
    made = CraftedService(honest(director))
    with made.running():
        yield made


@dataclass
class Deployed:
    """A host with the files of Ansible. `now` is its clock."""

    folder: Path
    service: CraftedService
    now: float = NOW
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def store(self) -> Store:
        return Store(
            spec_path=str(self.folder / "etc/spec.json"),
            state_folder=str(self.folder / "lib"),
            wanted_path=str(self.folder / "state/wanted.json"),
            applied_path=str(self.folder / "applied.json"),
        )

    @property
    def settings(self) -> Settings:
        return Settings(
            host="gw1",
            service=f"localhost:{self.service.port}",
            ca=str(self.folder / "etc/ca.pem"),
            token_file=str(self.folder / "etc/token"),
            director_root=str(self.folder / "etc/root.json"),
            groups=("edge",),
            labels={"site": "b"},
            metrics_listen="",
            socket=str(self.folder / "agent.sock"),
            state_folder=str(self.folder / "state"),
        )

    def deploy(self, director: Director) -> None:
        for name in ("etc", "state"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "etc/root.json").write_bytes(director.first_root)
        self.store.write_spec(BASE)
        self.allow("CONNTRACK.udpv6_enabled", "AGENT.poll_interval_seconds", "AGENT.metrics")
        self.trust()

    def trust(self) -> None:
        """The service's CA and token as they are now."""
        (self.folder / "etc/ca.pem").write_bytes(self.service.authority.certificate)
        (self.folder / "etc/token").write_text(self.service.token + "\n")

    def allow(self, *keys: str) -> None:
        (self.folder / "etc/remote.json").write_text(json.dumps({"keys": list(keys)}))

    def agent(self, **changes: Any) -> Agent:
        """Another start of the agent; ended with the test, or by `close`."""
        settings = replace(self.settings, **changes)
        agent = Agent(settings, self.store, str(self.folder / "pins"), lambda: self.now)
        self.stack.callback(agent.close)
        self.stack.callback(agent.channel.close)
        return agent


@pytest.fixture
def host(tmp_path: Path, service: CraftedService, director: Director) -> Iterator[Deployed]:
    """A host on which no agent runs yet."""
    deployed = Deployed(tmp_path, service)
    deployed.deploy(director)
    with deployed.stack:
        yield deployed


def eventually(condition: Callable[[], object], what: str) -> None:
    """Waits for what other threads do; far longer than it takes, so that load does not matter."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"it never came: {what}"
        time.sleep(0.01)
