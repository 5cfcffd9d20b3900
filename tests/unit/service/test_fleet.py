# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator is told of the hosts, page by page, over gRPC and TLS."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    PRESENCE_ACTIVE,
    PRESENCE_STALE,
    PRESENCE_UNHEARD,
    Client,
    ClientGetConfigsRequest,
    KnownClient,
    ListClientsRequest,
    ListClientsResponse,
)
from btfleet.service import fleet
from btfleet.service.clients import Clients

from tests.unit.service.simulator import later
from tests.unit.service.test_service import (
    Code,
    World,
    bearer,
    eventually,
    fails,
    poll_of,
    running,
    world,
    write_tokens,
)

__all__ = ["running", "world"]  # fixtures


def ask(world: World, token: str = "token-of-op", **fields: object) -> ListClientsResponse:  # noqa: S107
    request = ListClientsRequest(**fields)  # type: ignore[arg-type]
    return world.stub().ListClients(request, metadata=bearer(token), timeout=20)


def presences(answer: ListClientsResponse) -> dict[str, int]:
    return {known.client.id: known.presence for known in answer.clients}


def test_every_host_with_a_token_is_there_whether_it_was_heard_or_not(running: World) -> None:
    before = int(time.time())
    request = poll_of("h2", targets_version=1, groups=["edge"], labels={"site": "north"})
    request.client.state.config_states.add(path="p", apply_phase=4, apply_error="no room")
    request.client.effective.add(key="CONNTRACK.max_entries", value="2048", owner="base")
    request.client.health.status = "ok"
    running.poll(request, token="token-of-h2")  # noqa: S106
    answer = ask(running)
    assert presences(answer) == {"h1": PRESENCE_UNHEARD, "h2": PRESENCE_ACTIVE}
    assert answer.clients[0].client == Client(id="h1")
    heard = answer.clients[1].client
    assert heard.last_seen >= before
    heard.last_seen = 0
    assert heard == request.client
    assert (answer.root_version, answer.targets_version, answer.next_page_token) == (1, 1, "")
    assert before - 20 <= answer.started_at <= answer.now


def test_a_host_that_polls_no_more_is_stale_and_what_it_said_is_kept(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.poll(poll_of("h1", labels={"site": "north"}))
    monkeypatch.setattr(running.daemon.clients, "_ttl", -1.0)
    running.daemon.clients.sweep(time.time(), {"h1"})
    (host, _unheard) = ask(running).clients
    assert (host.presence, host.client.labels["site"]) == (PRESENCE_STALE, "north")
    assert running.sample("clients") == 0


def test_a_host_whose_token_is_gone_is_not_listed(running: World) -> None:
    running.poll(poll_of("h1"))
    write_tokens(running.settings.tokens, {"h2": ["token-of-h2"]}, {"op": ["token-of-op"]})
    eventually(lambda: presences(ask(running)) == {"h2": PRESENCE_UNHEARD})


def test_a_fleet_comes_in_pages_without_a_gap(running: World) -> None:
    names = [f"host{number:03}" for number in range(25)]
    write_tokens(running.settings.tokens, {name: [name] for name in names}, {"op": ["token-of-op"]})
    eventually(lambda: len(ask(running).clients) == 25)
    found: list[str] = []
    page_token = ""
    for expected in (10, 10, 5):
        answer = ask(running, page_size=10, page_token=page_token)
        assert len(answer.clients) == expected
        found += presences(answer)
        page_token = answer.next_page_token
    assert (found, page_token) == (names, "")
    assert presences(ask(running, page_size=1, page_token="host0075")).keys() == {"host008"}  # noqa: S106
    assert not ask(running, page_token="zzz").clients  # noqa: S106
    assert len(ask(running, page_size=2**32 - 1).clients) == 25


def test_only_operators_may_ask(running: World) -> None:
    fails(lambda: ask(running, token="token-of-h1"), Code.PERMISSION_DENIED, "an operator's")  # noqa: S106
    fails(lambda: ask(running, token="wrong"), Code.UNAUTHENTICATED, "unknown")  # noqa: S106
    nobody = running.stub()
    fails(lambda: nobody.ListClients(ListClientsRequest(), timeout=20), Code.UNAUTHENTICATED)


def test_what_is_no_request_is_refused(running: World) -> None:
    call: Any = running.channel().unary_unary("/btfleet.config.v1.ConfigService/ListClients")
    fails(
        lambda: call(b"\xff\xff", metadata=bearer("token-of-op"), timeout=20),
        Code.INVALID_ARGUMENT,
        "no ListClientsRequest",
    )


def test_before_anything_is_fetched_no_versions_are_served(world: World) -> None:
    (world.simulator.folder / "current").rename(world.folder / "aside")
    world.start()
    answer = ask(world)
    assert (answer.root_version, answer.targets_version) == (0, 0)
    assert presences(answer) == {"h1": PRESENCE_UNHEARD, "h2": PRESENCE_UNHEARD}


def test_an_expired_director_is_said(running: World, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = running.daemon.refresher.snapshot
    assert snapshot
    monkeypatch.setattr(snapshot, "expires", later(-1).timestamp())
    assert ask(running).config_status == CONFIG_STATUS_EXPIRED


# --- pages -------------------------------------------------------------------------------------


def heard(clients: Clients, host: str, size: int) -> None:
    client = Client(id=host, is_agent=True)
    client.health.status = "x" * size
    raw = ClientGetConfigsRequest(client=client).SerializeToString()
    clients.heard(host, raw, client, frozenset(), 0)


def pages(hosts: list[str], clients: Clients) -> Iterator[ListClientsResponse]:
    page_token = ""
    while True:
        request = ListClientsRequest(page_token=page_token)
        answer = fleet.page(request, hosts, clients, None, 0, 0)
        yield answer
        if not (page_token := answer.next_page_token):
            return


def test_no_page_is_longer_than_can_be_sent() -> None:
    """The longest requests that are kept, from more hosts than one page may have."""
    clients = Clients(30)
    hosts = [f"h{number:04}" for number in range(600)]
    for host in hosts:
        heard(clients, host, 60000)
    found: list[KnownClient] = []
    for answer in pages(hosts, clients):
        assert answer.ByteSize() < 2 << 20
        found += answer.clients
    assert [known.client.id for known in found] == hosts
    assert all(len(known.client.health.status) == 60000 for known in found)


def test_ten_thousand_hosts_take_twenty_pages() -> None:
    clients = Clients(30)
    hosts = [f"h{number:05}" for number in range(10000)]
    for host in hosts:
        heard(clients, host, 500)
    found = list(pages(hosts, clients))
    assert len(found) == 20
    assert list(itertools.chain(*(presences(answer) for answer in found))) == hosts
