# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests: what is wrong is named. Audience, clients and backoff: the parts without I/O."""

from __future__ import annotations

import random
from typing import Any

import pytest
from btfleet._config.predicates import HostFacts, check, matches
from btfleet.config.v1.config_pb2 import Client, ClientGetConfigsRequest
from btfleet.service import poll
from btfleet.service.audience import Audience
from btfleet.service.backoff import Backoff
from btfleet.service.clients import MAX_REQUEST, Clients
from btfleet.service.poll import InvalidPoll
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

GOOD = """
client {
  id: "h1" is_agent: true products: "CONNTRACK" groups: "edge"
  labels { key: "site" value: "paris" }
  state { root_version: 1 targets_version: 2 config_states { id: "all" path: "x" } }
}
cached_target_files {
  path: "btfleet/1/CONNTRACK/all/x" length: 3 hashes { algorithm: "sha256" hash: "AB01" }
}
"""


def request(text: str = GOOD) -> ClientGetConfigsRequest:
    return text_format.Parse(text, ClientGetConfigsRequest())


def test_a_good_poll() -> None:
    assert poll.check(request()) == poll.Poll(
        HostFacts("h1", frozenset(["edge"]), {"site": "paris"}),
        frozenset(["CONNTRACK"]),
        1,
        2,
        {"btfleet/1/CONNTRACK/all/x": (3, "ab01")},
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (GOOD, "", "client is missing"),
        (GOOD, 'client { id: "h" is_agent: true }', "client.state is missing"),
        ('id: "h1"', "", "client.id is empty"),
        ('id: "h1"', f'id: "{"h" * 257}"', "client.id has 257 characters, needed: at most 256"),
        ("is_agent: true", "", "0 of client.is_tracer, is_agent and is_updater are set"),
        ("is_agent: true", "is_agent: true is_updater: true", "2 of client.is_tracer"),
        ("is_agent: true", "is_tracer: true", "client_tracer.language is empty"),
        (
            "is_agent: true",
            'is_tracer: true client_tracer { runtime_id: "h1" language: "c" }',
            "client.id equals client_tracer.runtime_id",
        ),
        ("root_version: 1", "", "client.state.root_version is 0, needed: 1 or more"),
        ('products: "CONNTRACK"', 'products: ""', "client.products[0] has 0 characters"),
        ('products: "CONNTRACK"', 'products: "A" ' * 33, "client.products has 33 entries"),
        ('groups: "edge"', f'groups: "{"g" * 257}"', "client.groups[0] has 257 characters"),
        ('key: "site"', f'key: "{"k" * 257}"', "a name in client.labels"),
        ('value: "paris"', f'value: "{"v" * 257}"', "a value in client.labels"),
        ("root_version: 1", f'root_version: 1 error: "{"e" * 4097}"', "client.state.error"),
        ('id: "all"', f'id: "{"i" * 257}"', "client.state.config_states[0].id has 257"),
        ('id: "all"', f'apply_error: "{"i" * 4097}"', "config_states[0].apply_error"),
        ('path: "x"', f'path: "{"i" * 769}"', "client.state.config_states[0].path"),
        ("is_agent: true", f'is_agent: true effective {{ value: "{"v" * 4097}" }}', "effective[0]"),
        ("all/x", "all/../x", "cached_target_files[0].path"),
        ("length: 3", "length: -1", "cached_target_files[0].length is -1"),
        ('hashes { algorithm: "sha256" hash: "AB01" }', "", "hashes has 0 entries"),
        ('algorithm: "sha256"', "", "hashes[0].algorithm is empty"),
        ('hash: "AB01"', 'hash: "xyz"', "hashes[0].hash is no hash in hex"),
        ('hash: "AB01"', 'hash: "AB0"', "hashes[0].hash is no hash in hex"),
        ('hash: "AB01"', "", "hashes[0].hash is no hash in hex"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidPoll) as caught:
        poll.check(request(GOOD.replace(old, new)))
    assert words in str(caught.value)


@pytest.mark.parametrize("field", ["config_states", "effective", "labels", "cached_target_files"])
def test_lists_are_bounded(field: str) -> None:
    many = request()
    for number in range(20000):
        if field == "config_states":
            many.client.state.config_states.add()
        elif field == "effective":
            many.client.effective.add()
        elif field == "labels":
            many.client.labels[str(number)] = ""
        else:
            many.cached_target_files.add(path=f"btfleet/1/CONNTRACK/all/{number}")
    with pytest.raises(InvalidPoll, match=rf"{field} has 2000\d entries, needed: at most"):
        poll.check(many)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_poll_or_refused(raw: bytes) -> None:
    try:
        poll.check(ClientGetConfigsRequest.FromString(raw))
    except (DecodeError, InvalidPoll):
        return


@given(st.data())
def test_any_change_of_a_good_poll_is_a_poll_or_refused(data: st.DataObject) -> None:
    raw = bytearray(request().SerializeToString())
    for _change in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = poll.check(ClientGetConfigsRequest.FromString(bytes(raw)))
    except (DecodeError, InvalidPoll):
        return
    assert found.facts.host
    assert found.root_version >= 1


# --- audience ----------------------------------------------------------------------------------

words = st.sampled_from(["", "a", "b", "c"])
predicate = st.fixed_dictionaries(
    {},
    optional={"host": words, "group": words, "labels": st.dictionaries(words, words, max_size=2)},
).filter(lambda each: any(each.values()) and "" not in each.get("labels", {}))
facts = st.builds(
    HostFacts,
    words,
    st.frozensets(words),
    st.dictionaries(words.filter(bool), words, max_size=3),
)


@given(st.lists(st.lists(predicate, max_size=3), max_size=8), facts)
def test_the_index_finds_what_looking_at_each_config_finds(
    lists: list[list[dict[str, Any]]], host: HostFacts
) -> None:
    checked = [check(each) for each in lists]
    expected = [number for number, each in enumerate(checked) if matches(each, host)]
    assert Audience(checked).select(host) == expected


# --- clients -----------------------------------------------------------------------------------


def hear(clients: Clients, host: str, now: float, size: int = 0) -> bytes:
    message = ClientGetConfigsRequest(client=Client(id=host, is_agent=True))
    message.client.state.root_version = 3
    message.client.health.status = "x" * size
    raw = message.SerializeToString()
    clients.heard(host, raw, message.client, frozenset(["CONNTRACK"]), now)
    return raw


def names(clients: Clients, now: float) -> list[str]:
    return [client.id for client in clients.live(now)]


def test_clients_are_live_for_as_long_as_they_are_heard() -> None:
    clients = Clients(30)
    hear(clients, "a", 0)
    hear(clients, "b", 20)
    assert names(clients, 30) == ["a", "b"]
    assert names(clients, 31) == ["b"]
    assert [clients.count(30, product) for product in (None, "CONNTRACK", "AGENT")] == [2, 2, 0]
    assert clients.count(31) == 1
    hear(clients, "b", 50)
    assert [client.last_seen for client in clients.live(80)] == [50]
    assert names(clients, 81) == []


def test_clients_are_remembered_for_as_long_as_they_have_a_token() -> None:
    clients = Clients(30)
    hear(clients, "a", 0)
    hear(clients, "b", 20)
    clients.sweep(31, {"a", "b"})
    assert len(clients) == 2
    clients.sweep(31, {})
    assert len(clients) == 1, "b is live"
    clients.sweep(51, {"a"})
    assert len(clients) == 0


def test_who_stays_away_keeps_no_snapshot_in_memory() -> None:
    clients = Clients(30)
    for host, now in (("a", 0), ("b", 20)):
        hear(clients, host, now)
        entry = clients.get(host)
        assert entry
        entry.snapshot = object()
    clients.sweep(31, {"a", "b"})
    away, live = clients.get("a"), clients.get("b")
    assert away
    assert live
    assert (away.snapshot, live.snapshot is None) == (None, False)


def test_a_full_table_takes_nobody_and_the_sweep_makes_room_of_the_oldest() -> None:
    clients = Clients(1000, most=32)
    for number in range(40):
        hear(clients, f"{number:02}", number)
    assert len(clients) == 32
    assert "39" not in names(clients, 40)
    clients.sweep(40, ())
    assert names(clients, 40) == [f"{number:02}" for number in range(2, 32)]
    hear(clients, "39", 41)
    assert "39" in names(clients, 41)


def test_the_bytes_of_all_are_bounded() -> None:
    clients = Clients(1000, most_bytes=10000)
    for number in range(30):
        hear(clients, f"{number:02}", number, size=1000)
    clients.sweep(30, ())
    assert names(clients, 30) == [f"{number:02}" for number in range(21, 30)]


def test_a_request_that_is_too_long_is_cut_to_who_it_is() -> None:
    clients = Clients(30)
    raw = hear(clients, "a", 0, size=MAX_REQUEST)
    (client,) = clients.live(0)
    assert (client.id, client.is_agent, client.state.root_version) == ("a", True, 3)
    assert client.ByteSize() < 200
    entry = clients.get("a")
    assert entry
    assert entry.request != raw


# --- backoff -----------------------------------------------------------------------------------


def delays(backoff: Backoff) -> tuple[float, float]:
    found = [backoff.delay() for _draw in range(500)]
    return min(found), max(found)


def test_the_interval_has_jitter_and_backoff_is_added_to_it() -> None:
    backoff = Backoff(60, random.Random(1))  # noqa: S311
    backoff.succeeded()
    for lowest, highest in ((54, 66), (84, 126), (114, 186), (174, 186), (174, 186)):
        least, most = delays(backoff)
        assert lowest <= least < lowest + 3
        assert highest - 3 < most <= highest
        backoff.failed()
    for _failure in range(100):
        backoff.failed()
    assert backoff.failures == 8
    backoff.succeeded()
    assert backoff.failures == 6
    for _success in range(3):
        backoff.succeeded()
    assert backoff.failures == 0


def test_before_the_first_success_it_is_tried_again_soon() -> None:
    backoff = Backoff(60, random.Random(1))  # noqa: S311
    for highest in (2, 4, 8, 16, 32, 60, 60):
        backoff.failed()
        least, most = delays(backoff)
        assert highest / 2 <= least
        assert most <= highest
