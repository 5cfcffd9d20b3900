# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's view on the control node: rows of what the config service says, and clear errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.config_state import PHASES
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet import (
    fleet_inventory,
    fleet_messages,
    fleet_rows,
    fleet_view,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet.fleet_view import (
    FleetViewError,
    Service,
    fetch,
    read_token,
)
from btfleet.config.v1 import config_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.inventory.conftest import OPERATOR, Fleet
from tests.unit.service.certificates import Authority
from tests.unit.service.test_service import eventually

# --- rows --------------------------------------------------------------------------------------

PAGE = pb.ListClientsResponse(now=1000, started_at=100, root_version=2, targets_version=5)


def known(**fields: Any) -> pb.KnownClient:
    """A host that has everything in force."""
    client = pb.Client(id="h1", is_agent=True, last_seen=990)
    client.state.root_version, client.state.targets_version = 2, 5
    client.health.healthy = True
    for name, value in fields.items():
        setattr(client.state, name, value)
    return pb.KnownClient(client=client, presence=pb.PRESENCE_ACTIVE)


def row(found: pb.KnownClient) -> dict[str, Any]:
    return fleet_rows.row(found, PAGE)


def test_a_host_that_was_never_heard_has_all_keys_too() -> None:
    unheard = row(pb.KnownClient(client=pb.Client(id="h1"), presence=pb.PRESENCE_UNHEARD))
    assert unheard == {
        "host": "h1",
        "state": "unheard",
        "presence": "unheard",
        "problems": ["not heard since the config service started, 1970-01-01 00:01:40 UTC"],
        "last_seen": None,
        "as_of": 1000,
        "service_started_at": 100,
        "served_root_version": 2,
        "served_targets_version": 5,
        "served_expired": False,
        "version": None,
        "products": [],
        "groups": [],
        "labels": {},
        "root_version": 0,
        "targets_version": 0,
        "error": None,
        "health": None,
        "configs": [],
        "effective": [],
    }
    assert row(known()).keys() == unheard.keys()
    assert f"{fleet_view.__doc__}".count("\n    ") > len(unheard)
    for key in unheard:
        assert f"\n    {key} " in f"{fleet_view.__doc__}", "a key that the docstring does not say"


@pytest.mark.parametrize("phase", [1, 2])
def test_a_config_that_is_not_in_force_yet_is_pending(phase: int) -> None:
    host = known()
    host.client.state.config_states.add(path="p", apply_phase=phase)
    found = row(host)
    assert (found["state"], found["problems"]) == ("pending", [])
    assert found["configs"][0]["phase"] == PHASES[phase]


@pytest.mark.parametrize("fields", [{"targets_version": 4}, {"root_version": 1}])
def test_a_host_that_is_behind_is_pending(fields: dict[str, int]) -> None:
    assert row(known(**fields))["state"] == "pending"


def test_what_fails_is_named_in_one_line_each() -> None:
    host = known(has_error=True, error="freeze:\nmetadata \x1b[31mexpired")
    host.client.health.healthy = False
    host.client.health.status = "tracker: gone"
    host.client.state.config_states.add(path="b", apply_phase=pb.APPLY_PHASE_FAILED)
    host.client.state.config_states.add(
        path="a", apply_phase=pb.APPLY_PHASE_FAILED, apply_error="no room"
    )
    found = row(host)
    assert found["state"] == "failing"
    assert found["problems"] == [
        r"the last update failed: freeze: metadata \x1b[31mexpired",
        "the agent is not well: tracker: gone",
        "a failed: no room",
        "b failed: no reason given",
    ]


def test_a_host_that_is_not_heard_is_stale_whatever_it_said_last() -> None:
    host = known(has_error=True, error="x")
    host.presence = pb.PRESENCE_STALE
    found = row(host)
    assert found["state"] == "stale"
    assert found["problems"][0] == "not heard since 1970-01-01 00:16:30 UTC"


def test_a_client_of_the_family_without_our_phases_is_understood() -> None:
    host = known()
    for state in (0, 1, 2, 3):
        host.client.state.config_states.add(path=str(state), apply_state=state)
    assert [config["phase"] for config in row(host)["configs"]] == [
        "UNKNOWN",
        "RECEIVED",
        "APPLIED",
        "FAILED",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("false", False), ("2048", 2048), ('"a"', "a"), ('["a", "b"]', ["a", "b"]), ("null", None)],
)
def test_a_plain_effective_value_is_what_its_json_means(text: str, value: object) -> None:
    assert fleet_rows.value(text) == value


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)  # what a message can hold
HALVES = st.text(st.characters(categories=["Cs", "L"]), max_size=5)  # what JSON can say besides


@given(TEXT, st.lists(TEXT, max_size=5), st.dictionaries(TEXT, TEXT, max_size=5), HALVES)
def test_whatever_a_host_says_can_be_written_down_and_makes_no_group_of_another_kind(
    text: str, groups: list[str], labels: dict[str, str], half: str
) -> None:
    host = known(has_error=True, error=text)
    host.client.groups.extend(groups)
    for name, value in labels.items():
        host.client.labels[name] = value
    host.client.effective.add(key=text, value=text)
    host.client.effective.add(key="json", value=json.dumps(half))
    found = row(host)
    assert json.loads(json.dumps(found, ensure_ascii=False, allow_nan=False).encode()) == found
    assert all(line.isprintable() for line in found["problems"])
    for group in fleet_inventory.groups_of(found, fleet_inventory.GROUPINGS):
        assert group == "failing" or group.startswith(("label_", "group_"))


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "d", "all", None, 3]))
)
def test_names_in_an_inventory_are_good_and_never_given_twice(wanted: dict[str, object]) -> None:
    found, warnings = fleet_inventory.names(wanted)
    assert found.keys() == wanted.keys()
    assert len(set(found.values())) == len(found)
    assert all(map(fleet_inventory.is_name, found.values()))
    changed = {host for host in wanted if found[host] != wanted[host]}
    assert len(warnings) == len(changed)
    assert all(found[host] == host for host in changed)


# --- the call ----------------------------------------------------------------------------------


@pytest.fixture
def service(fleet: Fleet) -> Service:
    return Service(
        f"localhost:{fleet.world.daemon.port}", str(fleet.folder / "ca.pem"), token=OPERATOR
    )


def test_a_fleet_of_several_pages_comes_whole(fleet: Fleet, service: Service) -> None:
    hosts = [f"h{number:04}" for number in range(1201)]
    fleet.has(*hosts)
    eventually(lambda: len(fleet.world.daemon._tokens.host_names) == 1201)
    fleet.hears("h0700", labels={"a": "b"})
    found = fetch(service)
    assert [each["host"] for each in found] == hosts
    assert found[700]["labels"] == {"a": "b"}
    assert found[700]["state"] == "applied"


def test_a_service_that_wants_a_certificate_of_ours_gets_it(fleet: Fleet, service: Service) -> None:
    fleet.world.stop()
    operators = Authority("operators")
    (fleet.folder / "clients.pem").write_bytes(operators.certificate)
    operators.write(fleet.folder / "own.pem", fleet.folder / "own.key")
    tls = fleet.world.settings.tls._replace(client_ca=str(fleet.folder / "clients.pem"))
    fleet.world.start(tls=tls)
    service = replace(service, address=f"localhost:{fleet.world.daemon.port}")
    with pytest.raises(FleetViewError, match="is not to be reached"):
        fetch(service)
    own = {
        "client_certificate": str(fleet.folder / "own.pem"),
        "client_key": str(fleet.folder / "own.key"),
    }
    assert len(fetch(replace(service, **own))) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "localhost:1"}, "localhost:1 is not to be reached"),
        ({"address": "nowhere.invalid:1"}, "nowhere.invalid:1 is not to be reached"),
        ({"address": ""}, "needed: HOST:PORT"),
        ({"tls_server_name": "other.example.org"}, "is not to be reached"),
        ({"token": "wrong"}, "does not take the token"),
        ({"token": "token-of-h1"}, "use an operator's token, not a host's"),
        ({"token": ""}, "does not hold one word of ASCII"),
        ({"token": "two words"}, "does not hold one word of ASCII"),
        ({"token": "tökén"}, "does not hold one word of ASCII"),
        ({"ca": "/nowhere/ca.pem"}, "cannot read the CA's certificate, /nowhere/ca.pem (No such"),
        ({"ca": ""}, "no file is named for the CA's certificate"),
        ({"ca": "/dev/null"}, "/dev/null is not the CA's certificate"),
        ({"client_key": "/nowhere/key"}, "cannot read the client's key"),
        ({"deadline": 0.0}, "has not answered within 0 s"),
    ],
)
def test_what_goes_wrong_is_one_line_without_the_token(
    service: Service, changes: dict[str, Any], words: str
) -> None:
    wrong = replace(service, **changes)
    with pytest.raises(FleetViewError) as caught:
        fetch(wrong)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert wrong.token == "" or wrong.token not in f"{caught.value} {wrong!r}"


def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  token \n")
    assert read_token(str(path)) == "token"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(FleetViewError, match="too long"):
        read_token(str(path))
    path.unlink()
    with pytest.raises(FleetViewError, match=r"cannot read .*No such file"):
        read_token(str(path))


@contextmanager
def other_service(authority: Authority, *answers: bytes | grpc.StatusCode) -> Iterator[int]:
    """A server that gives these answers to calls of ListClients, by turns; its port."""
    given_answers = iter(answers)

    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        found = next(given_answers)
        if isinstance(found, bytes):
            return found
        context.abort(found, "because\nof this")
        raise AssertionError("abort raises")

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        handlers: dict[str, Any] = {"ListClients": grpc.unary_unary_rpc_method_handler(answer)}
        name = "btfleet.config.v1.ConfigService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        certificate, key = authority.issue()
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port("localhost:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((grpc.StatusCode.UNIMPLEMENTED,), "its release is too old"),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED,), r"does not take the call now \(because of this\)"),
        ((grpc.StatusCode.INTERNAL,), r"answered INTERNAL \(because of this\): see its log"),
        ((b"\xff\xff",), "answered INTERNAL"),
        ((b"\x0a\xff\xff\xff\x04" + b"x" * (9 << 20),), "does not take the call now"),
        (
            (pb.ListClientsResponse(next_page_token="a").SerializeToString(),) * 2,  # noqa: S106
            "sends the same page of hosts again",
        ),
    ],
)
def test_a_service_that_answers_something_else_is_named(
    tmp_path: Path, answers: tuple[bytes | grpc.StatusCode, ...], words: str
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    with other_service(authority, *answers) as port:
        service = Service(f"localhost:{port}", str(tmp_path / "ca.pem"), token="t")  # noqa: S106
        with pytest.raises(FleetViewError, match=words) as caught:
            fetch(service)
    assert "\n" not in str(caught.value)


def test_what_a_control_node_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service("localhost:1", "ca.pem", token="t")  # noqa: S106
    fleet_messages.load.cache_clear()
    monkeypatch.setattr(fleet_messages, "DESCRIPTION", str(tmp_path / "none"))
    with pytest.raises(FleetViewError, match=r"cannot read .*: install the collection from its"):
        fetch(service)
    monkeypatch.setattr(fleet_messages, "HAS_PROTOBUF", False)
    with pytest.raises(FleetViewError, match=r"the library protobuf is missing for .*: install"):
        fetch(service)
    monkeypatch.setattr(fleet_view, "HAS_GRPC", False)
    with pytest.raises(FleetViewError, match=r"the library grpcio is missing for .*: install"):
        fetch(service)
