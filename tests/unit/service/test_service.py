# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole service over gRPC and TLS on the loopback address."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from btfleet.config.v1 import config_pb2
from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    CONFIG_STATUS_OK,
    Client,
    ClientGetConfigsRequest,
    ClientGetConfigsResponse,
)
from btfleet.config.v1.config_pb2_grpc import ConfigServiceStub
from btfleet.service import daemon, refresh
from btfleet.service.daemon import THREADS, Daemon
from btfleet.service.errors import ServiceError
from btfleet.service.service import Pool
from btfleet.service.settings import Settings
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.unit.service.certificates import Authority
from tests.unit.service.simulator import Simulator, later, path_of
from tests.unit.service.test_attacks import FIRST

Code = grpc.StatusCode


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bearer(token: str) -> tuple[tuple[str, str | bytes], ...]:
    """A call's metadata."""
    return (("authorization", f"Bearer {token}"),)


def write_tokens(path: str, hosts: dict[str, list[str]], operators: dict[str, list[str]]) -> None:
    """Replaces the tokens file; it gets hashes only."""
    data = {
        kind: {name: [sha256(token) for token in tokens] for name, tokens in each.items()}
        for kind, each in (("hosts", hosts), ("operators", operators))
    }
    put(path, json.dumps(data).encode())


def put(path: str, raw: bytes) -> None:
    """Replaces a file as a whole."""
    new = Path(f"{path}.new")
    new.write_bytes(raw)
    new.replace(path)


def eventually(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def poll_of(host: str, **state: Any) -> ClientGetConfigsRequest:
    """What a host's agent asks at first."""
    client = Client(id=host, is_agent=True, products=["CONNTRACK", "AGENT"])
    client.state.root_version = state.pop("root_version", 1)
    client.state.targets_version = state.pop("targets_version", 0)
    client.groups.extend(state.pop("groups", ()))
    for name, value in state.pop("labels", {}).items():
        client.labels[name] = value
    assert not state
    return ClientGetConfigsRequest(client=client)


@dataclass
class World:
    """A service, and ways to call it."""

    settings: Settings
    simulator: Simulator
    authority: Authority
    stack: ExitStack
    folder: Path
    daemon: Daemon = field(init=False)
    channels: ExitStack = field(default_factory=ExitStack)

    def start(self, **changes: Any) -> None:
        """Starts it and waits for the first refresh, if there is to be one."""
        self.settings = replace(self.settings, **changes)
        self.daemon = Daemon(self.settings)
        self.stack.enter_context(self.daemon.running())
        self.stack.callback(self._hang_up)
        if self.settings.enabled and (self.simulator.folder / "current").exists():
            eventually(lambda: self.refreshes("changed", "unchanged") > 0)

    def stop(self) -> None:
        """As by SIGTERM."""
        self.channels.close()
        self.channels = ExitStack()
        self.stack.close()

    def _hang_up(self) -> None:
        self.channels.close()

    def refreshes(self, *results: str) -> float:
        """How many ended with these results."""
        values = [self.sample("refreshes_total", {"result": result}) or 0.0 for result in results]
        return sum(values)

    def sample(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        """A metric's value."""
        return self.daemon.metrics.registry.get_sample_value(
            f"btfleet_config_service_{name}", labels
        )

    def refresh(self) -> None:
        """What the loop does at its time, now."""
        self.daemon.refresher.refresh()

    def channel(self, authority: Authority | None = None, **client: bytes) -> grpc.Channel:
        """A new connection."""
        credentials = grpc.ssl_channel_credentials(
            (authority or self.authority).certificate, client.get("key"), client.get("certificate")
        )
        # Each its own connection, as from different hosts
        options = [("grpc.use_local_subchannel_pool", 1)]
        return self.channels.enter_context(
            grpc.secure_channel(f"localhost:{self.daemon.port}", credentials, options)
        )

    def stub(self) -> ConfigServiceStub:
        """On a new connection."""
        return ConfigServiceStub(self.channel())

    def poll(
        self,
        request: ClientGetConfigsRequest,
        token: str = "token-of-h1",  # noqa: S107
    ) -> ClientGetConfigsResponse:
        """One poll."""
        return self.stub().ClientGetConfigs(request, metadata=bearer(token), timeout=20)


@pytest.fixture
def world(
    settings: Settings, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(daemon, "HOUSEKEEPING_SECONDS", 0.02)
    monkeypatch.setattr(refresh, "MIN_PAUSE_SECONDS", 0.02)
    authority = Authority()
    authority.write(Path(settings.tls.certificate), Path(settings.tls.key))
    write_tokens(
        settings.tokens,
        {"h1": ["token-of-h1"], "h2": ["token-of-h2", "new-token-of-h2"]},
        {"op": ["token-of-op"]},
    )
    with ExitStack() as stack:
        yield World(settings, simulator, authority, stack, tmp_path)


@pytest.fixture
def running(world: World) -> World:
    world.start()
    return world


def fails(call: Callable[[], object], code: grpc.StatusCode, *words: str) -> None:
    """The call ends with that status, and the text says why in one line."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    text = caught.value.details() or ""
    assert caught.value.code() == code, text
    for word in words:
        assert word in text
    assert "\n" not in text


# --- polls -------------------------------------------------------------------------------------


def test_a_first_poll_brings_everything_and_the_next_one_nothing(running: World) -> None:
    answer = running.poll(poll_of("h1"))
    assert answer.targets == (running.simulator.current / "director/1.targets.json").read_bytes()
    assert list(answer.roots) == []
    assert list(answer.client_configs) == [FIRST]
    assert [(file.path, file.raw) for file in answer.target_files] == [
        (FIRST, b'{"udpv6_enabled": false}')
    ]
    assert answer.config_status == CONFIG_STATUS_OK
    assert running.poll(poll_of("h1", targets_version=1)) == ClientGetConfigsResponse()
    assert running.poll(poll_of("h1", targets_version=1)) == ClientGetConfigsResponse()


def test_a_change_reaches_a_host_that_was_up_to_date(running: World) -> None:
    request = poll_of("h1", targets_version=1)
    assert not running.poll(request).targets
    running.simulator.put(path_of("second"), {"tcpv6_enabled": False})
    running.simulator.publish()
    running.refresh()
    assert list(running.poll(request).client_configs) == [FIRST, path_of("second")]
    running.simulator.remove(FIRST)
    running.simulator.publish()
    running.refresh()
    assert list(running.poll(request).client_configs) == [path_of("second")]


def test_files_that_the_client_has_are_not_sent_again(running: World) -> None:
    raw = b'{"udpv6_enabled": false}'
    request = poll_of("h1")
    file = request.cached_target_files.add(path=FIRST, length=len(raw))
    file.hashes.add(algorithm="sha256", hash=hashlib.sha256(raw).hexdigest().upper())
    answer = running.poll(request)
    assert list(answer.client_configs) == [FIRST]
    assert not answer.target_files
    file.hashes[0].hash = "00" * 32
    assert len(running.poll(request).target_files) == 1
    file.hashes[0].algorithm = "sha512"  # nothing to compare is not equal
    file.hashes[0].hash = hashlib.sha512(raw).hexdigest()
    assert len(running.poll(request).target_files) == 1


def test_roots_after_the_clients_come_oldest_first(running: World) -> None:
    director = running.simulator.director
    director.rotate("root")
    director.rotate("timestamp")
    running.simulator.publish()
    running.refresh()
    roots = director.roots
    assert list(running.poll(poll_of("h1")).roots) == [roots[2], roots[3]]
    assert list(running.poll(poll_of("h1", root_version=2)).roots) == [roots[3]]
    assert list(running.poll(poll_of("h1", root_version=2, targets_version=2)).roots) == [roots[3]]
    assert running.poll(poll_of("h1", root_version=3, targets_version=2)).ByteSize() == 0
    assert list(running.poll(poll_of("h1", root_version=9)).roots) == []


def test_a_root_that_is_older_than_what_the_service_began_with(world: World) -> None:
    for _rotation in range(3):
        world.simulator.director.rotate("root")
    world.simulator.publish()
    Path(world.settings.roots.director).write_bytes(world.simulator.director.roots[3])
    world.start()
    assert len(world.poll(poll_of("h1", root_version=2)).roots) == 2
    fails(
        lambda: world.poll(poll_of("h1", root_version=1)),
        Code.FAILED_PRECONDITION,
        "client.state.root_version is 1, and the oldest director root here is 3",
    )


def test_configs_go_to_whom_they_are_meant_for(running: World) -> None:
    put = running.simulator.put
    put(path_of("h2"), {"max_entries": 2048}, predicates=[{"host": "h2"}])
    put(path_of("edge"), {"max_entries": 4096}, predicates=[{"group": "edge"}])
    put(path_of("paris"), {"max_entries": 8192}, predicates=[{"labels": {"site": "paris"}}])
    put(path_of("both"), {}, predicates=[{"host": "h1", "group": "edge"}, {"host": "h3"}])
    put(path_of("over"), {}, expires=1)
    put(path_of("later"), {}, expires=int(time.time()) + 86400)
    put(path_of("log", "AGENT"), {"log_level": "debug"})
    running.simulator.publish()
    running.refresh()
    common = [path_of("log", "AGENT"), FIRST, path_of("later")]

    def paths(host: str = "h1", **state: Any) -> set[str]:
        return set(running.poll(poll_of(host, **state), f"token-of-{host}").client_configs)

    assert paths() == set(common)
    assert paths("h2") == {*common, path_of("h2")}
    assert paths(groups=["edge"]) == {*common, path_of("edge"), path_of("both")}
    assert paths(labels={"site": "paris"}) == {*common, path_of("paris")}
    assert paths(labels={"site": "rome"}) == set(common)
    request = poll_of("h1")
    request.client.ClearField("products")
    request.client.products.extend(["AGENT", "UNKNOWN"])
    assert set(running.poll(request).client_configs) == {path_of("log", "AGENT")}


def test_an_expired_director_clears_and_a_renewed_one_refills(world: World) -> None:
    expires = later(2 / 86400)
    world.simulator.director.timestamp.signed.expires = expires
    world.simulator.write()
    world.start()
    request = poll_of("h1", targets_version=1)
    answer = world.poll(request)
    eventually(lambda: time.time() > expires.timestamp())
    for _again in range(2):
        answer = world.poll(request)
        assert answer == ClientGetConfigsResponse(config_status=CONFIG_STATUS_EXPIRED)
    assert world.poll(poll_of("h1")).config_status == CONFIG_STATUS_EXPIRED
    # it survives a restart, with a repository that cannot be read
    (world.simulator.folder / "current").unlink()
    world.stop()
    world.start()
    assert world.poll(poll_of("h1")).config_status == CONFIG_STATUS_EXPIRED
    # renewed without another targets version, the host (now at 0) gets everything
    world.simulator.director.timestamp.signed.expires = later()
    world.simulator.director.timestamp.signed.version += 1
    world.simulator.write()
    world.refresh()
    answer = world.poll(poll_of("h1"))
    assert (answer.config_status, list(answer.client_configs)) == (CONFIG_STATUS_OK, [FIRST])


def test_before_anything_was_fetched(world: World) -> None:
    (world.simulator.folder / "current").rename(world.folder / "aside")
    world.start()
    fails(lambda: world.poll(poll_of("h1")), Code.UNAVAILABLE, "nothing was fetched")


def test_switched_off(world: World) -> None:
    world.start(enabled=False)
    fails(lambda: world.poll(poll_of("h1")), Code.UNIMPLEMENTED, "switched off")
    fails(lambda: world.poll(poll_of("h1"), "nobody's"), Code.UNIMPLEMENTED)


def test_the_suggested_interval_is_in_every_answer(world: World) -> None:
    world.start(suggested_interval_seconds=30)
    for version in (0, 1):
        answer = world.poll(poll_of("h1", targets_version=version))
        assert answer.suggested_interval_seconds == 30


def test_who_waited_too_long_is_told_to_come_back_later(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "waited", lambda: 5.0)
    answer = running.poll(poll_of("h1"))
    assert 5 <= answer.retry_after_seconds <= 15
    assert not answer.targets
    assert running.sample("polls_total", {"result": "busy"}) == 1


def test_a_job_knows_how_long_it_waited() -> None:
    with Pool(1) as pool:
        first = pool.submit(time.sleep, 0.05)
        second = pool.submit(Pool.waited)
        first.result()
        assert second.result() > 0.02
    assert Pool.waited() == 0.0


# --- who calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer ")],
        [("authorization", "Basic token-of-h1")],
        [("authorization", "token-of-h1")],
        [("authorization", "Bearer wrong")],
        [("authorization", f"Bearer {sha256('token-of-h1')}")],
        [("authorization", "Bearer " + "x" * 5000)],
        [("authorization", "Bearer token-of-h1"), ("authorization", "Bearer token-of-h2")],
    ],
)
def test_without_a_known_token_nothing_is_answered(
    running: World, metadata: list[tuple[str, str]]
) -> None:
    stub = running.stub()
    for method, request in (
        (stub.ClientGetConfigs, poll_of("h1")),
        (stub.GetConfigState, Empty()),
        (stub.ResetConfigState, Empty()),
    ):
        fails(lambda m=method, r=request: m(r, metadata=metadata, timeout=20), Code.UNAUTHENTICATED)  # type: ignore[misc]


def test_a_stolen_token_of_another_host(running: World) -> None:
    fails(
        lambda: running.poll(poll_of("h1"), "token-of-h2"),
        Code.PERMISSION_DENIED,
        "the token is not the one of client.id 'h1'",
    )
    running.poll(poll_of("h1", targets_version=1))
    # neither where the request is, to the byte, one that was answered before
    fails(
        lambda: running.poll(poll_of("h1", targets_version=1), "token-of-h2"),
        Code.PERMISSION_DENIED,
    )
    fails(lambda: running.poll(poll_of("op"), "token-of-op"), Code.PERMISSION_DENIED)
    assert running.sample("polls_total", {"result": "permission_denied"}) == 3


def test_a_host_may_not_do_what_operators_do(running: World) -> None:
    stub, metadata = running.stub(), bearer("token-of-h1")
    for method in (stub.GetConfigState, stub.ResetConfigState):
        fails(lambda m=method: m(Empty(), metadata=metadata), Code.PERMISSION_DENIED, "operator's")  # type: ignore[misc]


def test_tokens_are_rotated_while_it_runs(running: World) -> None:
    running.poll(poll_of("h2"), "token-of-h2")
    running.poll(poll_of("h2"), "new-token-of-h2")
    write_tokens(running.settings.tokens, {"h1": ["x"], "h2": ["new-token-of-h2"]}, {})
    running.poll(poll_of("h1"), "x")  # unknown so far, so the file is read again at once
    running.poll(poll_of("h2"), "new-token-of-h2")
    fails(lambda: running.poll(poll_of("h2"), "token-of-h2"), Code.UNAUTHENTICATED)
    fails(lambda: running.poll(poll_of("h1")), Code.UNAUTHENTICATED)
    assert running.sample("tokens") == 2


def test_a_tokens_file_that_went_wrong_leaves_the_old_tokens(running: World) -> None:
    put(running.settings.tokens, b'{"hosts": {"h1": ["token-of-h1"]}}')
    eventually(
        lambda: running.sample("reloads_total", {"file": "tokens", "result": "refused"}) == 1
    )
    running.poll(poll_of("h1"))


def test_a_caller_without_a_token_takes_no_thread(running: World) -> None:
    """Calls that are opened and never sent would else hold every thread of the pool."""
    channel = running.channel()

    def never() -> Iterator[bytes]:
        released.wait()
        yield b""

    released = threading.Event()
    method: Any = channel.stream_unary("/btfleet.config.v1.ConfigService/ClientGetConfigs")
    opened = [method.future(never(), timeout=120) for _call in range(2 * THREADS)]
    try:
        # The first ones; the others come too often
        assert {call.code() for call in opened} <= {
            Code.UNAUTHENTICATED,
            Code.RESOURCE_EXHAUSTED,
        }
        running.poll(poll_of("h1"))
    finally:
        released.set()


# --- TLS ---------------------------------------------------------------------------------------


def test_without_the_right_ca_there_is_no_connection(running: World) -> None:
    stub = ConfigServiceStub(running.channel(Authority()))
    fails(lambda: stub.ClientGetConfigs(poll_of("h1"), timeout=5), Code.UNAVAILABLE)
    plain = running.channels.enter_context(
        grpc.insecure_channel(f"localhost:{running.daemon.port}")
    )
    fails(lambda: ConfigServiceStub(plain).ClientGetConfigs(poll_of("h1")), Code.UNAVAILABLE)


def test_the_certificate_is_rotated_while_it_runs(running: World) -> None:
    """To a new chain of another authority; connections that are open stay."""
    old, metadata = running.stub(), bearer("token-of-h1")
    old.ClientGetConfigs(poll_of("h1"), metadata=metadata)
    former, running.authority = running.authority, Authority("another CA")
    tls = running.settings.tls
    running.authority.write(Path(tls.certificate), Path(tls.key))
    assert running.poll(poll_of("h1")).targets
    old.ClientGetConfigs(poll_of("h1"), metadata=metadata)
    stub = ConfigServiceStub(running.channel(former))
    fails(lambda: stub.ClientGetConfigs(poll_of("h1"), timeout=5), Code.UNAVAILABLE)
    assert running.sample("reloads_total", {"file": "tls", "result": "taken"})


def test_a_certificate_that_was_read_before_anybody_connects_is_offered_all_the_same(
    running: World,
) -> None:
    running.poll(poll_of("h1"))
    running.authority = Authority("another CA")
    tls = running.settings.tls
    running.authority.write(Path(tls.certificate), Path(tls.key))
    eventually(lambda: running.sample("reloads_total", {"file": "tls", "result": "taken"}) == 1)
    assert running.poll(poll_of("h1")).targets


def test_a_pair_that_does_not_belong_together_leaves_the_old_one(running: World) -> None:
    tls = running.settings.tls
    put(tls.certificate, Authority().issue()[0])
    assert running.poll(poll_of("h1")).targets
    assert running.poll(poll_of("h1")).targets
    assert running.sample("reloads_total", {"file": "tls", "result": "refused"}) == 1
    running.authority.write(Path(tls.certificate), Path(tls.key))
    assert running.poll(poll_of("h1")).targets
    assert running.sample("reloads_total", {"file": "tls", "result": "taken"}) == 1


def test_mutual_tls(world: World) -> None:
    clients = Authority("clients' CA")
    ca = world.folder / "clients.pem"
    ca.write_bytes(clients.certificate)
    world.start(tls=world.settings.tls._replace(client_ca=str(ca)))
    fails(lambda: world.poll(poll_of("h1")), Code.UNAVAILABLE)
    for issuer, is_good in ((clients, True), (Authority("clients' CA"), False)):
        certificate, key = issuer.issue("h1")
        stub = ConfigServiceStub(world.channel(certificate=certificate, key=key))
        call = functools.partial(
            stub.ClientGetConfigs, poll_of("h1"), metadata=bearer("token-of-h1"), timeout=5
        )
        if is_good:
            assert call().targets
        else:
            fails(call, Code.UNAVAILABLE)


# --- the rest of the surface -------------------------------------------------------------------


def test_requests_that_are_none(running: World) -> None:
    channel = running.channel()
    call: Any = channel.unary_unary("/btfleet.config.v1.ConfigService/ClientGetConfigs")
    metadata = bearer("token-of-h1")
    for raw in (b"\xff", b"\x0a\x05\x12\x03\xff\xff\xff"):
        fails(
            lambda r=raw: call(r, metadata=metadata),  # type: ignore[misc]
            Code.INVALID_ARGUMENT,
            "no ClientGetConfigsRequest",
        )
    fails(lambda: call(b"", metadata=metadata), Code.INVALID_ARGUMENT, "client is missing")
    fails(lambda: call(b"x" * (5 << 20), metadata=metadata), Code.RESOURCE_EXHAUSTED)
    unknown: Any = channel.unary_unary("/btfleet.config.v1.ConfigService/Nothing")
    fails(lambda: unknown(b"", metadata=metadata), Code.UNIMPLEMENTED)
    assert running.poll(poll_of("h1")).targets


def test_health_needs_no_token(world: World) -> None:
    (world.simulator.folder / "current").rename(world.folder / "aside")
    world.start()
    stub: Any = health_pb2_grpc.HealthStub(world.channel())

    def status(service: str) -> int:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        return int(answer.status)

    names = ("", "btfleet.config.v1.ConfigService")
    assert {status(name) for name in names} == {health_pb2.HealthCheckResponse.NOT_SERVING}
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    (world.folder / "aside").rename(world.simulator.folder / "current")
    world.daemon.refresh_now()
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert {status(name) for name in names} == {health_pb2.HealthCheckResponse.SERVING}
    fails(lambda: status("other"), Code.NOT_FOUND)


def reflected(world: World) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(world.channel())
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=20)
    return [service.name for service in answer.list_services_response.service]


def test_reflection_is_off_unless_it_is_asked_for(world: World) -> None:
    world.start()
    fails(lambda: reflected(world), Code.UNIMPLEMENTED)
    world.stop()
    world.start(reflection=True)
    assert "btfleet.config.v1.ConfigService" in reflected(world)


def test_an_operator_sees_what_is_published_and_who_polls(running: World) -> None:
    running.simulator.put(path_of("edge"), {}, predicates=[{"group": "edge"}], expires=5000000000)
    running.simulator.publish()
    running.refresh()
    request = poll_of("h1", groups=["edge"])
    request.client.effective.add(key="CONNTRACK.max_entries", value="2048", owner="base")
    before = int(time.time())
    running.poll(request)
    state = running.stub().GetConfigState(Empty(), metadata=bearer("token-of-op"))
    assert [(c.path, c.version, c.expires, c.predicates) for c in state.published] == [
        (path_of("edge"), 1, 5000000000, '[{"group": "edge"}]'),
        (FIRST, 1, 0, ""),
    ]
    raw = b'{"udpv6_enabled": false}'
    assert state.target_filenames[FIRST] == hashlib.sha256(raw).hexdigest()
    for name, kept in (("director", state.director_state), ("config", state.config_state)):
        assert {file: each.version for file, each in kept.items()} == {
            "root.json": 1,
            "timestamp.json": 2,
            "snapshot.json": 2,
            "targets.json": 2,
        }
        path = running.simulator.current / name / "timestamp.json"
        assert kept["timestamp.json"].hash == hashlib.sha256(path.read_bytes()).hexdigest()
    (client,) = state.active_clients
    assert client.last_seen >= before
    client.last_seen = 0
    assert client == request.client
    assert state.health.healthy
    assert state.refreshed_at >= before - 20
    (running.simulator.folder / "current").unlink()
    with pytest.raises(ServiceError):
        running.refresh()
    state = running.stub().GetConfigState(Empty(), metadata=bearer("token-of-op"))
    assert not state.health.healthy
    assert state.health.last_error.startswith("not found:")
    assert len(state.published) == 2


def test_an_operator_can_have_everything_fetched_anew(running: World) -> None:
    running.simulator.publish()
    running.refresh()
    running.simulator.switch_to(1)
    stub, metadata = running.stub(), bearer("token-of-op")
    stub.ResetConfigState(Empty(), metadata=metadata)
    assert running.poll(poll_of("h1", targets_version=1)).ByteSize() == 0
    (running.simulator.folder / "current").unlink()
    fails(
        lambda: stub.ResetConfigState(Empty(), metadata=metadata),
        Code.UNAVAILABLE,
        "all is as it was: not found",
    )
    assert running.poll(poll_of("h1")).targets


def test_a_restart_serves_at_once_what_it_had(world: World) -> None:
    world.start()
    world.stop()
    (world.simulator.folder / "current").unlink()
    world.start()
    assert list(world.poll(poll_of("h1")).client_configs) == [FIRST]


def test_metrics_are_served(world: World) -> None:
    world.start(metrics_listen="127.0.0.1:0")
    world.poll(poll_of("h1"))
    world.poll(poll_of("h1", targets_version=1))
    with urllib.request.urlopen(f"http://127.0.0.1:{world.daemon.metrics_port}/metrics") as http:
        lines = set(http.read().decode().splitlines())
    name = "btfleet_config_service"
    for line in (
        f'{name}_polls_total{{result="full"}} 1.0',
        f'{name}_polls_total{{result="up_to_date"}} 1.0',
        f"{name}_poll_seconds_count 2.0",
        f'{name}_refreshes_total{{result="changed"}} 1.0',
        f'{name}_metadata_version{{repository="director",role="targets"}} 1.0',
        f"{name}_snapshot_configs 1.0",
        f"{name}_clients 1.0",
        f'{name}_client_products{{product="CONNTRACK"}} 1.0',
        f"{name}_tokens 4.0",
    ):
        assert line in lines


def test_ports_that_are_taken_are_named(world: World) -> None:
    world.start(metrics_listen="127.0.0.1:0")
    folder = world.folder / "other"
    for changes, words in (
        ({"listen": f"127.0.0.1:{world.daemon.port}"}, "cannot listen on 127.0.0.1"),
        (
            {"metrics_listen": f"127.0.0.1:{world.daemon.metrics_port}"},
            "cannot listen on metrics_listen",
        ),
    ):
        other = Daemon(replace(world.settings, state_folder=str(folder), **changes))  # type: ignore[arg-type]
        with pytest.raises(ServiceError, match=words), other.running():
            pass


def test_messages_are_those_of_the_contract() -> None:
    """The handler is made by hand, so that answers can stay serialized: names must be right."""
    service = config_pb2.DESCRIPTOR.services_by_name["ConfigService"]
    assert [method.name for method in service.methods] == [
        "ClientGetConfigs",
        "GetConfigState",
        "ListClients",
        "ResetConfigState",
    ]
