# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host, or whoever has its token, sends to the config service."""

from __future__ import annotations

import logging

from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.service import poll
from btfleet.service.clients import MAX_REQUEST, Clients
from btfleet.service.metrics import Metrics
from btfleet.service.service import Code, ConfigService, Rejected
from btfleet.service.snapshot import EXPIRED
from btfleet.service.tokens import HOST, Identity, TokenFile

from tests.fuzz import published
from tests.fuzz.target import check_line
from tests.unit.poller.director import NOW
from tests.unit.service.simulator import path_of

_WHO = Identity(HOST, "h1")
_REFUSALS = (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION)


class Poll:
    """The bytes of a ClientGetConfigsRequest, with the token of the host h1."""

    def __init__(self) -> None:
        logging.getLogger("btfleet").setLevel(logging.CRITICAL)
        folder = published.memory()
        simulator = published.simulator(folder / "repository")
        self._first_root = simulator.director.roots[1]
        self._contents = set(simulator.contents.values())
        self.refresher = published.refresher(simulator, folder)
        (folder / "tokens.json").write_text("{}")
        tokens = TokenFile(str(folder / "tokens.json"), lambda _error: None)
        self._clients = Clients(3600)
        self._service = ConfigService(self.refresher, tokens, self._clients, Metrics())

    def seeds(self) -> list[bytes]:
        client = pb.Client(
            id="h1",
            is_agent=True,
            products=["AGENT", "CONNTRACK"],
            groups=["edge"],
            labels={"site": "b"},
            effective=[pb.EffectiveValue(key="CONNTRACK.max_entries", value="1", owner="base")],
            state=pb.ClientState(root_version=1, targets_version=1),
        )
        new = pb.ClientGetConfigsRequest(client=client)
        new.client.state.targets_version = 0
        same = pb.ClientGetConfigsRequest(client=client)
        same.client.state.root_version = 2
        cached = pb.ClientGetConfigsRequest(client=client)
        cached.client.state.config_states.add(
            id="all", version=1, product="CONNTRACK", path=path_of("first"), apply_error="no"
        )
        meta = cached.cached_target_files.add(path=path_of("first"), length=24)
        meta.hashes.add(algorithm="sha256", hash="ab" * 32)
        tracer = pb.ClientGetConfigsRequest(client=client)
        tracer.client.is_agent, tracer.client.is_tracer = False, True
        tracer.client.client_tracer.language = "c"
        return [each.SerializeToString() for each in (new, same, cached, tracer)]

    def run(self, data: bytes) -> None:
        known, refusal = self._clients.get(_WHO.name), None
        try:
            result, answer = self._service.poll(_WHO, data, NOW)
        except Rejected as exc:
            refusal = exc
        if refusal:
            check_line(refusal)
            assert refusal.code in _REFUSALS, refusal
            if refusal.code != Code.FAILED_PRECONDITION:  # that one was a good request
                assert self._clients.get(_WHO.name) is known
            return
        assert result != EXPIRED
        entry = self._clients.get(_WHO.name)
        assert len(self._clients) == 1
        assert entry is not None
        assert len(entry.request) <= MAX_REQUEST
        assert len(list(self._clients.live(NOW))) == 1  # for an operator, it is parsed again
        self._check(data, pb.ClientGetConfigsResponse.FromString(answer))

    def _check(self, data: bytes, answer: pb.ClientGetConfigsResponse) -> None:
        """An agent with these facts and nothing else takes it."""
        assert all(file.raw in self._contents for file in answer.target_files)
        asked = poll.check(pb.ClientGetConfigsRequest.FromString(data))
        if asked.root_version == 1 and not asked.cached:
            host = verify.Host(asked.facts, asked.products, 1)
            after = verify.update(verify.start(self._first_root), answer, host, NOW)
            assert set(after.configs) == set(answer.client_configs)
