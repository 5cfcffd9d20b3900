# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole agent against a real gRPC service: order, faults, attacks, restarts."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from btfleet import agent_status
from btfleet._kernel.backends.netlink.pulse import Pulse
from btfleet.agent.v1 import agent_pb2, agent_pb2_grpc
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.poller.agent import Agent
from btfleet.poller.errors import PollerError, SettingsError, StorageError, UpdateRefused
from btfleet.poller.listener import Configs, Listener
from btfleet.poller.service_channel import ServiceChannel
from btfleet.poller.states import APPLIED, APPLYING, FAILED, RECEIVED
from google.protobuf import empty_pb2

from tests.unit.poller.conftest import Deployed, eventually, honest
from tests.unit.poller.crafted_service import CraftedService
from tests.unit.poller.director import CALM, DAY, NO_UDP6, NOW, Director, content, signed, signer
from tests.unit.service.certificates import Authority

CALM_60 = {CALM: content(poll_interval_seconds=60)}


def poll_fails(agent: Agent) -> PollerError:
    """The error; what is in force stays."""
    before = verify.in_force(agent.trusted, NOW)
    with pytest.raises(PollerError) as caught:
        agent.poll()
    assert verify.in_force(agent.trusted, NOW) == before
    assert "\n" not in str(caught.value)
    return caught.value


@contextmanager
def running(agent: Agent) -> Iterator[None]:
    """The agent at work in its thread."""
    ready = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            agent.run(ready.set, lambda: None)
        except BaseException as exc:
            failures.append(exc)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        agent.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert not failures


def phases(agent: Agent) -> dict[str, int]:
    return {state.path: state.phase for state in agent.book.all()}


# --- requests -----------------------------------------------------------------------------------


def test_a_poll_says_who_we_are_and_what_we_hold(host: Deployed) -> None:
    agent = host.agent()
    agent.poll()
    agent.poll()
    first, second = (request.client for request in host.service.requests)
    assert (first.id, first.is_agent, first.client_agent.name) == ("gw1", True, "btfleet")
    assert (list(first.groups), dict(first.labels)) == (["edge"], {"site": "b"})
    assert (first.state.root_version, first.state.targets_version) == (1, 0)
    assert (second.state.root_version, second.state.targets_version) == (1, 2)
    (state,) = second.state.config_states
    assert (state.path, state.id, state.product) == (NO_UDP6, "edge", "CONNTRACK")
    assert (state.apply_phase, state.apply_state) == (pb.APPLY_PHASE_RECEIVED, 1)
    (cached,) = host.service.requests[1].cached_target_files
    assert (cached.path, cached.hashes[0].algorithm) == (NO_UDP6, "sha256")


def test_an_error_is_told_at_the_next_poll(host: Deployed) -> None:
    agent = host.agent()
    good = host.service.answer
    host.service.answer = lambda _request, _context: pb.ClientGetConfigsResponse(roots=[b"x"])
    agent.loop._poll_once()
    host.service.answer = good
    agent.loop._poll_once()
    agent.loop._poll_once()
    errors = [request.client.state.error for request in host.service.requests]
    assert errors[0] == errors[2] == ""
    assert errors[1].startswith("malformed answer: ")


# --- order --------------------------------------------------------------------------------------


def test_the_agent_may_start_before_the_service(director: Director, host: Deployed) -> None:
    late = CraftedService(honest(director))
    with late.running():
        pass  # so that it has a port
    host.service = late
    host.trust()
    agent = host.agent()
    assert "is not to be reached" in str(poll_fails(agent))
    with late.running():
        agent.poll()
    assert set(agent.trusted.configs) == {NO_UDP6}


def test_a_service_with_another_chain_and_another_token_is_reached_when_they_are_deployed(
    director: Director, host: Deployed
) -> None:
    agent = host.agent()
    agent.poll()
    other = CraftedService(honest(director), token="rotated")  # noqa: S106
    with other.running():
        agent.channel._settings = host.settings.__class__(
            **{**vars(host.settings), "service": f"localhost:{other.port}"}
        )
        agent.channel.close()
        assert poll_fails(agent).kind == "service"
        (host.folder / "etc/ca.pem").write_bytes(other.authority.certificate)
        assert poll_fails(agent).kind == "token"
        (host.folder / "etc/token").write_text("rotated")
        agent.poll()
    assert len(other.requests) == 1


def test_a_service_that_goes_and_comes_back_is_reached_at_the_next_poll(
    director: Director, tmp_path: Any
) -> None:
    service = CraftedService(honest(director))
    with service.running():
        host = Deployed(tmp_path, service)
        host.deploy(director)
        agent = host.agent()
        agent.poll()
    with host.stack:
        for _number in range(3):
            assert poll_fails(agent).kind == "service"
        service.authority = Authority("another")
        with service.running():
            host.trust()
            agent.poll()


def test_a_restart_without_the_service_works_from_the_last_good_state(
    host: Deployed, director: Director
) -> None:
    agent = host.agent()
    agent.poll()
    agent.close()
    agent.channel.close()
    host.service.token = "changed"  # noqa: S105 nothing is answered any more
    again = host.agent()
    assert again.trusted.configs == agent.trusted.configs
    poll_fails(again)
    assert set(verify.in_force(again.trusted, NOW)) == {NO_UDP6}
    assert again.trusted.root_version == len(director.roots)


def test_remote_config_that_is_switched_off_ends_polling_and_keeps_what_is_in_force(
    host: Deployed,
) -> None:
    agent = host.agent()
    agent.loop._poll_once()

    def refuse(_request: pb.ClientGetConfigsRequest, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "remote config is off")

    host.service.answer = refuse
    agent.loop._poll_once()
    assert agent.state().polling_ended
    assert agent.health().components["poll"].healthy
    assert set(verify.in_force(agent.trusted, NOW)) == {NO_UDP6}


# --- attacks on the wire ------------------------------------------------------------------------


def test_endless_data_is_cut_off(host: Deployed) -> None:
    agent = host.agent()
    agent.poll()
    host.service.answer = lambda _request, _context: pb.ClientGetConfigsResponse(
        targets=bytes(verify.MAX_ANSWER + 1)
    )
    error = poll_fails(agent)
    assert (error.kind, str(error).startswith("endless data: ")) == ("endless_data", True)


def test_a_service_that_never_answers_is_left(host: Deployed) -> None:
    release = threading.Event()
    good = host.service.answer

    def hang(request: pb.ClientGetConfigsRequest, context: grpc.ServicerContext) -> Any:
        release.wait(60)
        return good(request, context)

    agent = host.agent()
    agent.channel = ServiceChannel(host.settings, deadline=0.2)
    host.service.answer = hang
    try:
        assert "has not answered in time" in str(poll_fails(agent))
    finally:
        release.set()
        agent.channel.close()


def test_an_answer_that_does_not_verify_leaves_disk_and_state(
    host: Deployed, director: Director
) -> None:
    agent = host.agent()
    agent.poll()
    before = agent._repository.load()
    director.publish(CALM_60)
    director.targets = signed(director.make_targets(), [signer()]).to_bytes()
    error = poll_fails(agent)
    assert isinstance(error, UpdateRefused)
    assert error.kind == "signature"
    assert agent._repository.load() == before


@pytest.mark.parametrize("token", ["", "two words", "uml\u00e4ut", "x" * 5000, "\0"])
def test_a_token_that_is_none_is_not_sent(host: Deployed, token: str) -> None:
    agent = host.agent()
    (host.folder / "etc/token").write_text(token)
    error = poll_fails(agent)
    assert isinstance(error, SettingsError)
    assert not host.service.requests
    if token.strip():
        assert token not in str(error)


def test_a_certificate_of_another_authority_is_not_trusted(host: Deployed) -> None:
    agent = host.agent()
    (host.folder / "etc/ca.pem").write_bytes(Authority("another").certificate)
    assert "certificate" in str(poll_fails(agent))
    (host.folder / "etc/ca.pem").write_text("nothing")
    assert "holds no certificate" in str(poll_fails(agent))
    assert not host.service.requests


def test_a_client_certificate_is_shown_and_read_again_when_it_is_replaced(
    host: Deployed, director: Director
) -> None:
    mutual = CraftedService(honest(director))
    mutual.clients = Authority("clients")
    host.service = mutual
    host.trust()
    certificate, key = host.folder / "etc/client.pem", host.folder / "etc/client.key"
    Authority("strangers").write(certificate, key)
    with mutual.running():
        agent = host.agent(client_certificate=str(certificate), client_key=str(key))
        assert poll_fails(agent).kind == "service"
        mutual.clients.write(certificate, key)
        agent.poll()
        key.unlink()
        assert isinstance(poll_fails(agent), SettingsError)


def test_the_name_in_the_certificate_may_be_another_than_the_address(
    host: Deployed, director: Director
) -> None:
    named = CraftedService(honest(director))
    named.authority = host.service.authority
    with named.running():
        address = f"127.0.0.1:{named.port}"
        wrong = host.agent(service=address, tls_server_name="elsewhere.example.org")
        assert poll_fails(wrong).kind == "service"
        wrong.close()
        host.agent(service=address, tls_server_name="localhost").poll()


# --- faults -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_the_update_and_room_heals_it(
    host: Deployed, director: Director
) -> None:
    agent = host.agent()
    agent.poll()
    database = agent._repository._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    files = {f"btfleet/1/AGENT/edge/{number}": b" " * 9000 + b"{}" for number in range(9)}
    director.publish(files)
    error = poll_fails(agent)
    assert isinstance(error, StorageError)
    assert "full" in str(error)
    database.execute("PRAGMA max_page_count = 1000000")
    agent.poll()
    assert set(agent.trusted.configs) == set(files)


def test_a_damaged_state_is_set_aside_and_fetched_anew(host: Deployed) -> None:
    agent = host.agent()
    agent.poll()
    agent.close()
    path = host.folder / "state/state.db"
    path.write_bytes(b"no database" * 1000)
    again = host.agent()
    assert again.trusted.targets is None
    assert (host.folder / "state/state.db.damaged").exists()
    again.poll()
    assert set(again.trusted.configs) == {NO_UDP6}


def test_a_state_that_somebody_changed_is_not_used(host: Deployed) -> None:
    agent = host.agent()
    agent.poll()
    agent._repository._database.execute("UPDATE files SET raw = ?", (b"{}",))
    agent.close()
    again = host.agent()
    assert (again.trusted.targets, again.trusted.configs) == (None, {})
    again.poll()
    assert set(again.trusted.configs) == {NO_UDP6}


def test_what_ansible_has_not_deployed_is_missed_with_one_line(host: Deployed) -> None:
    with pytest.raises(SettingsError, match="cannot read /nowhere"):
        host.agent(director_root="/nowhere/root.json")
    with pytest.raises(SettingsError, match="the state folder /nowhere cannot be used"):
        host.agent(state_folder="/nowhere")
    (host.folder / "etc/root.json").write_text("{}")
    with pytest.raises(SettingsError, match="is no root of a director"):
        host.agent()


def test_what_a_killed_agent_left_half_written_goes(host: Deployed) -> None:
    left = host.folder / "state/.btfleet-x"
    left.touch()
    host.agent()
    assert not left.exists()


def test_two_agents_do_not_share_a_state_folder(host: Deployed) -> None:
    host.agent()
    with pytest.raises(SettingsError, match="another agent has the state folder"):
        host.agent()


def test_an_agent_that_cannot_start_lets_the_state_folder_go(host: Deployed) -> None:
    (host.folder / "state/state.db").mkdir()
    with pytest.raises(StorageError, match="unable to open database file"):
        host.agent()
    (host.folder / "state/state.db").rmdir()
    host.agent()


def test_a_clock_that_is_an_hour_ahead_loses_nothing(host: Deployed, director: Director) -> None:
    director.expires = NOW + 1800
    director.publish(director.files)
    agent = host.agent()
    agent.poll()
    host.now = NOW + 3600
    assert set(verify.in_force(agent.trusted, int(host.now))) == {NO_UDP6}
    director.publish(CALM_60)
    assert isinstance(poll_fails(agent), UpdateRefused)
    host.now = NOW
    agent.poll()
    assert set(agent.trusted.configs) == {CALM}


def test_a_service_that_only_says_that_nothing_is_new_freezes_nobody_for_ever(
    host: Deployed, director: Director
) -> None:
    agent = host.agent()
    agent.poll()
    host.now = director.expires + DAY
    agent.poll()
    assert agent._told["CONNTRACK"] == {}
    assert not agent.health().healthy
    assert agent.health().last_error.startswith("configs: freeze: ")
    director.expires = int(host.now) + DAY
    director.rotate("root")
    director.publish(director.files)
    agent.poll()
    assert set(agent._told["CONNTRACK"]) == {NO_UDP6}
    assert agent.health().components["configs"].healthy


def test_expired_lets_go_over_restarts_and_fills_again(host: Deployed) -> None:
    agent = host.agent()
    agent.poll()
    good = host.service.answer
    host.service.answer = lambda _request, _context: pb.ClientGetConfigsResponse(
        config_status=pb.CONFIG_STATUS_EXPIRED
    )
    agent.poll()
    assert (agent._told["CONNTRACK"], agent.expired) == ({}, True)
    agent.close()
    again = host.agent()
    assert again.expired
    host.service.answer = good
    again.poll()
    assert set(again._told["CONNTRACK"]) == {NO_UDP6}
    assert not again.expired
    assert host.service.requests[-1].client.state.targets_version == 0


# --- listeners ----------------------------------------------------------------------------------


def test_configs_are_told_to_their_product_only_and_once(
    host: Deployed, director: Director
) -> None:
    agent = host.agent()
    told: list[tuple[str, set[str]]] = []

    class Recorder(Listener):
        def post(self, configs: Configs) -> None:
            told.append((self.product, set(configs)))

    agent.listeners = {product: Recorder(product, agent.agent) for product in agent.listeners}
    agent.poll()
    agent.poll()
    director.publish({**director.files, **CALM_60})
    agent.poll()
    assert told == [("CONNTRACK", {NO_UDP6}), ("AGENT", set()), ("AGENT", {CALM})]


def test_nothing_is_told_before_it_is_known_what_there_is(host: Deployed) -> None:
    agent = host.agent()
    agent._tell()
    assert agent._told == {}


def test_a_listener_that_hangs_keeps_back_neither_polls_nor_other_products(
    host: Deployed, director: Director
) -> None:
    release = threading.Event()
    director.publish({**director.files, CALM: content(poll_interval_seconds=1)})
    agent = host.agent(poll_interval_seconds=1)
    agent.conntrack.update = lambda _configs: release.wait(60)  # type: ignore[assignment, method-assign]
    try:
        with running(agent):
            eventually(lambda: phases(agent).get(CALM) == APPLIED, "the other product's state")
            eventually(lambda: agent.loop.stats.polls >= 2, "polls that go on")
            assert phases(agent)[NO_UDP6] == RECEIVED
            assert agent.listeners["CONNTRACK"].busy_for() > 0
            release.set()
    finally:
        release.set()


# --- the product AGENT, and the socket -----------------------------------------------------------


def call(host: Deployed) -> tuple[grpc.Channel, agent_pb2_grpc.AgentServiceStub]:
    channel = grpc.insecure_channel(f"unix:{host.settings.socket}")
    return channel, agent_pb2_grpc.AgentServiceStub(channel)


def test_poll_interval_and_metrics_follow_their_config_and_come_back(
    host: Deployed, director: Director
) -> None:
    agent = host.agent(metrics_listen="127.0.0.1:1")
    assert agent.metrics is not None
    agent.metrics._address = ("127.0.0.1", 0)
    director.publish({CALM: content(poll_interval_seconds=1, metrics=False)})
    with running(agent):
        eventually(lambda: phases(agent).get(CALM) == APPLIED, "the config")
        assert agent.metrics.port is None
        assert agent.loop.interval_in_force == 1.0
        assert agent.effective()["AGENT.metrics"] == (False, CALM)
        assert agent.effective()["AGENT.log_level"] == ("info", "base")
        director.publish({})
        eventually(lambda: agent.metrics and agent.metrics.port, "the base")
        assert agent.loop.interval_in_force == 5.0
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.metrics.port}/metrics") as page:
            text = page.read().decode()
    assert "btfleet_agent_targets_version 4.0" in text
    assert "btfleet_tracker_loaded 0.0" in text


def test_what_ansible_allows_is_followed_while_it_runs(host: Deployed, director: Director) -> None:
    host.allow()
    director.publish(CALM_60)
    agent = host.agent()
    agent.agent.interval = 0.05
    with running(agent):
        eventually(lambda: phases(agent).get(CALM) == FAILED, "the refusal")
        (state,) = agent.book.all()
        assert "remote config may not override" in state.reason
        host.allow("AGENT.poll_interval_seconds")
        eventually(lambda: phases(agent).get(CALM) == APPLIED, "the config")
        assert agent.loop.interval_in_force == 60.0


def test_a_tracker_of_the_tier_netlink_is_degraded_and_unwell_without_its_process(
    host: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = host.agent()
    record = {"fingerprint": "f", "tier": "netlink", "degraded": "lockdown"}
    monkeypatch.setattr(agent.maps, "record", lambda: record)
    monkeypatch.setattr(agent.maps, "pulse", lambda: Pulse(time.monotonic_ns(), 1, 2))
    tracker = agent.health().components["tracker"]
    assert (tracker.healthy, tracker.status) == (True, "degraded: lockdown")
    monkeypatch.setattr(agent.maps, "pulse", lambda: None)
    tracker = agent.health().components["tracker"]
    assert not tracker.healthy
    assert tracker.last_error.startswith("no process follows the conntrack events")
    agent.close()


def test_the_socket_is_for_its_group_and_says_the_state(host: Deployed) -> None:
    agent = host.agent()
    with running(agent):
        eventually(lambda: agent.loop.stats.last_success_at, "a poll")
        mode = os.stat(host.settings.socket).st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
        channel, stub = call(host)
        with channel:
            state = stub.GetState(empty_pb2.Empty(), timeout=30)
            assert (state.host, state.client.targets_version) == ("gw1", 2)
            assert {value.key for value in state.effective} >= {"AGENT.poll_interval_seconds"}
            assert state.health.components["tracker"].last_error == "no tracker is loaded"
            with pytest.raises(grpc.RpcError) as caught:
                stub.Lookup(agent_pb2.LookupRequest(protocol="nonsense"), timeout=30)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.Dump(agent_pb2.DumpRequest(), timeout=30))
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert "no tracker is loaded" in str(caught.value.details())
    assert not os.path.exists(host.settings.socket)


def test_the_status_command_shows_the_agent_to_a_person(host: Deployed) -> None:
    settings = host.folder / "etc/agent.json"
    assert agent_status.read(str(settings)) is None
    assert agent_status.describe(None, NOW) == []
    settings.write_text(
        json.dumps({"host": "gw1", "service": "s:1", "socket": host.settings.socket})
    )
    absent = agent_status.read(str(settings))
    assert absent is not None
    assert agent_status.describe(absent, NOW)[0].startswith("agent     NOT running: ")
    agent = host.agent()
    with running(agent):
        eventually(lambda: phases(agent).get(NO_UDP6) == APPLYING, "the config's state")
        eventually(lambda: agent.loop.stats.last_success_at, "a poll")
        found = agent_status.read(str(settings))
    assert found is not None
    json.dumps(found)
    lines = agent_status.describe(found, NOW)
    assert lines[0].startswith("agent     NOT well: polls localhost:")
    assert "problem   tracker: no tracker is loaded" in lines
    assert "remote    root 1, targets 2" in lines
    assert f"config    {NO_UDP6} version 1: APPLYING for 0 s" in lines


def test_a_damaged_settings_file_is_said_by_the_status_command(host: Deployed) -> None:
    settings = host.folder / "etc/agent.json"
    settings.write_text("{")
    found = agent_status.read(str(settings))
    assert found is not None
    assert not found["running"]
    assert "not valid JSON" in found["error"]


def test_an_agent_is_stopped_in_the_middle_of_a_poll(host: Deployed) -> None:
    release, heard = threading.Event(), threading.Event()

    def hang(_request: pb.ClientGetConfigsRequest, _context: grpc.ServicerContext) -> Any:
        heard.set()
        release.wait(60)
        return pb.ClientGetConfigsResponse()

    host.service.answer = hang
    agent = host.agent()
    try:
        with running(agent):
            assert heard.wait(60)
        assert agent.loop.stats.failed == 0
    finally:
        release.set()
