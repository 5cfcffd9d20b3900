# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers without a good token are slowed down by address; those with one never are."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import pytest
from btfleet.config.v1.config_pb2 import ListClientsRequest
from btfleet.service import strangers
from btfleet.service.rate_limit import RateLimit
from btfleet.service.strangers import AT_ONCE, address_of
from google.protobuf.empty_pb2 import Empty
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.service.test_service import Code, World, bearer, fails, poll_of, running, world

__all__ = ["running", "world"]  # fixtures


class Clock:
    """A time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_so_many_at_once_and_then_one_at_a_time() -> None:
    clock = Clock()
    limit = RateLimit(3, 0.5, 10, clock)
    assert [limit.take("a") for _each in range(5)] == [0, 0, 0, 2, 2]
    assert limit.take("b") == 0
    clock.now = 1.5
    assert limit.take("a") == 0.5
    clock.now = 2
    assert [limit.take("a") for _each in range(2)] == [0, 2]
    clock.now = 1000
    assert [limit.take("a") for _each in range(4)] == [0, 0, 0, 2]


@given(st.lists(st.floats(0, 10), max_size=60))
def test_no_pattern_of_calls_gets_more_than_the_rate(pauses: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(3, 0.5, 10, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += limit.take("a") == 0
        assert taken <= 3 + clock.now * 0.5 + 1e-6


def test_the_memory_is_bounded_and_the_newest_are_kept() -> None:
    limit = RateLimit(1, 0.001, 100, Clock())
    for number in range(1000):
        assert limit.take(f"{number}") == 0
    assert len(limit) == 100
    assert limit.take("999") > 0
    assert limit.take("0") == 0, "forgotten"


def test_threads_get_no_more_together() -> None:
    limit = RateLimit(50, 0.001, 10, Clock())
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(limit.take, ["a"] * 400))
    assert waits.count(0) == 50


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:41234", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1:2:3:4%5D:41234", "2001:db8::/64"),
        ("ipv6:[2001:db8::5]:1", "2001:db8::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/x:y", "unix"),
        ("", ""),
    ],
)
def test_addresses(peer: str, address: str) -> None:
    assert address_of(peer) == address


@given(st.text())
def test_any_name_of_a_peer_is_counted_with_something(peer: str) -> None:
    assert isinstance(address_of(peer), str)


def test_strangers_are_told_when_to_come_again_and_hosts_behind_the_same_address_pass(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine some of them would be slow enough
    monkeypatch.setattr(strangers, "RateLimit", partial(RateLimit, clock=Clock()))
    world.start()
    name = "btfleet.service.strangers"
    caplog.set_level(logging.WARNING, name)
    stub = world.stub()
    for _each in range(AT_ONCE):
        fails(lambda: world.poll(poll_of("h1"), token="wrong"), Code.UNAUTHENTICATED, "unknown")  # noqa: S106
    for _each in range(20):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ClientGetConfigs(poll_of("h1"), metadata=bearer("wrong"), timeout=20)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() == Code.RESOURCE_EXHAUSTED
        text = caught.value.details() or ""
        assert "the token is unknown" in text, "what is wrong is still said"
        assert "too many such calls from 127.0.0.1" in text.replace("::/64", "127.0.0.1")
        assert 1 <= int(dict(caught.value.trailing_metadata() or ())["retry-after"]) <= 5
        assert world.poll(poll_of("h1")).targets
        assert stub.GetConfigState(Empty(), metadata=bearer("token-of-op"), timeout=20).published
    request = ListClientsRequest()
    fails(lambda: stub.ListClients(request, timeout=20), Code.RESOURCE_EXHAUSTED, "no token")
    assert world.sample("failed_authentications_total", {"result": "refused"}) == AT_ONCE
    assert world.sample("failed_authentications_total", {"result": "limited"}) == 21
    assert world.sample("polls_total", {"result": "unauthenticated"}) == AT_ONCE + 20
    assert world.sample("polls_total", {"result": "full"}) == 20
    lines = [record.getMessage() for record in caplog.records if record.name == name]
    assert len(lines) == 5
    assert all("was refused: the token is unknown" in line for line in lines)
    assert "wrong" not in "".join(lines).replace("wrong token", "")


def test_a_host_of_a_right_token_that_may_not_do_this_is_no_stranger(running: World) -> None:
    for _each in range(AT_ONCE + 5):
        fails(
            lambda: running.stub().GetConfigState(Empty(), metadata=bearer("token-of-h1")),
            Code.PERMISSION_DENIED,
        )
    assert running.sample("failed_authentications_total", {"result": "refused"}) == 0
