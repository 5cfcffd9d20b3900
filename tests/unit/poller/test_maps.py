# SPDX-License-Identifier: GPL-3.0-or-later
"""Look-ups, dumps and metrics from real maps, over the real socket."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from btfleet._kernel.backends.netlink import pulse
from btfleet._kernel.backends.netlink.pulse import Pulse
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack import netns
from btfleet._kernel.conntrack.layout import COUNTERS, possible_cpus
from btfleet._kernel.loader import access
from btfleet._kernel.spec import Spec
from btfleet.agent.v1 import agent_pb2 as pb
from btfleet.agent.v1 import agent_pb2_grpc
from btfleet.poller import verify
from btfleet.poller.local_service import AgentService, serve
from btfleet.poller.loop import PollStats
from btfleet.poller.maps import Maps
from btfleet.poller.metrics import AgentCollector, MetricsServer, Snapshot
from btfleet.poller.states import APPLIED, ApplyState
from btfleet.service.metrics import Metrics as ServiceMetrics
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    PING,
    Wanted,
    bpffs_at,
    hash_map,
    needs_bpf,
    tracker_map,
)
from tests.unit.poller.director import HOST, NO_UDP6, NOW, Director, content

RECORD = {
    "fingerprint": Spec("a" * 64).fingerprint,
    "spec": Spec("a" * 64).to_dict(),
    "tier": "core/kprobe",
    "lifecycle": "pinned",
    "loaded_at": 1000,
}


def write_record(fd: int, **changes: str) -> None:
    raw = json.dumps({**RECORD, **changes}).encode()
    bpf.map_update(fd, bytes(4), raw.ljust(bpf.map_info(fd).value_size, b"\0"))


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    """A tracker's maps, pinned, with three flows of which one is over."""
    with bpffs_at(tmp_path / "bpf") as mount:
        folder = mount / "btfleet"
        folder.mkdir()
        with tracker_map(64) as live, tracker_map(64) as closed:
            MASQUERADED.write(live)
            PING.write(live)
            MASQUERADED_V6.write(closed)
            bpf.obj_pin(live, str(folder / "conntrack_live"))
            bpf.obj_pin(closed, str(folder / "conntrack_closed"))
        with hash_map(4, 8, len(COUNTERS), bpf.PERCPU_ARRAY) as counters:
            each = struct.pack("=Q", 1) * possible_cpus()
            bpf.map_update(counters, struct.pack("=I", COUNTERS.index("live_full")), each)
            bpf.obj_pin(counters, str(folder / "counters"))
        with hash_map(4, 4096, 1, bpf.ARRAY) as record:
            write_record(record)
            bpf.obj_pin(record, str(folder / "loaded"))
        yield folder


@contextmanager
def listening(maps: Maps, folder: Path) -> Iterator[agent_pb2_grpc.AgentServiceStub]:
    path = str(folder / "a.sock")
    server = serve(path, AgentService(pb.AgentState, maps))
    try:
        with grpc.insecure_channel(f"unix:{path}") as channel:
            yield agent_pb2_grpc.AgentServiceStub(channel)
    finally:
        server.stop(0).wait()


@pytest.fixture
def stub(pins: Path, tmp_path: Path) -> Iterator[agent_pb2_grpc.AgentServiceStub]:
    with listening(Maps(str(pins)), tmp_path) as found:
        yield found


def request(flow: Wanted, reply: bool = False, **other: Any) -> pb.LookupRequest:
    src, sport, dst, dport = flow.reply if reply else flow.orig
    ends = pb.Tuple(src=src, sport=sport, dst=dst, dport=dport)
    fields: dict[str, Any] = {"tuple": ends, "protocol": str(flow.protocol), "netns": flow.netns}
    return pb.LookupRequest(**{**fields, **other})


def ends(found: pb.Tuple) -> tuple[str, int, str, int]:
    return found.src, found.sport, found.dst, found.dport


def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    text = str(caught.value.details())
    assert "\n" not in text
    return caught.value.code(), text


@needs_bpf
@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize(
    ("flow", "state", "protocol"),
    [(MASQUERADED, "live", "tcp"), (MASQUERADED_V6, "closed", "udp"), (PING, "live", "icmp")],
)
def test_either_direction_is_found_live_or_closed(
    stub: agent_pb2_grpc.AgentServiceStub, flow: Wanted, state: str, protocol: str, reply: bool
) -> None:
    found = stub.Lookup(request(flow, reply), timeout=30)
    assert (ends(found.orig), ends(found.reply)) == (flow.orig, flow.reply)
    assert (found.state, found.protocol, found.netns) == (state, protocol, flow.netns)
    assert found.family == ("ipv6" if ":" in flow.orig[0] else "ipv4")
    assert (found.closed_seconds_ago > 0) is (state == "closed")
    assert not found.netns_gone


@needs_bpf
def test_what_is_not_in_the_flows_namespace_is_looked_for_in_the_root_one(
    pins: Path, tmp_path: Path
) -> None:
    root = MASQUERADED.__class__(MASQUERADED.orig, MASQUERADED.reply, 17, netns=netns.own())
    with bpf.closing(bpf.obj_get(str(pins / "conntrack_live"))) as fd:
        root.write(fd)
    with listening(Maps(str(pins)), tmp_path) as stub:
        for number in (12345, 0, netns.own()):
            assert stub.Lookup(request(root, netns=number), timeout=30).netns == netns.own()


@needs_bpf
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"zone": 7}, grpc.StatusCode.NOT_FOUND),
        ({"protocol": "sctp"}, grpc.StatusCode.NOT_FOUND),
        ({"protocol": "nonsense"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"protocol": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"zone": 65536}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"tuple": pb.Tuple(src="x", dst="y")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"tuple": pb.Tuple(src="::1", dst="1.2.3.4")}, grpc.StatusCode.INVALID_ARGUMENT),
        (
            {"tuple": pb.Tuple(src="::1", dst="::1", sport=65536)},
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ],
)
def test_a_look_up_that_finds_nothing_or_cannot_be(
    stub: agent_pb2_grpc.AgentServiceStub, change: dict[str, Any], code: grpc.StatusCode
) -> None:
    found, text = code_of(lambda: stub.Lookup(request(MASQUERADED, **change), timeout=30))
    assert found == code
    assert text


@needs_bpf
@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({}, 2),
        ({"state": "live"}, 2),
        ({"state": "closed"}, 1),
        ({"state": "all"}, 3),
        ({"state": "all", "limit": 2}, 2),
        ({"state": "all", "protocol": "udp"}, 1),
        ({"address": "203.0.113.1"}, 2),
        ({"port": 40000}, 1),
        ({"netns": 1}, 0),
    ],
)
def test_a_dump_has_what_was_asked_for(
    stub: agent_pb2_grpc.AgentServiceStub, change: dict[str, Any], count: int
) -> None:
    answers = list(stub.Dump(pb.DumpRequest(**change), timeout=30))
    assert sum(len(answer.translations) for answer in answers) == count


@needs_bpf
@pytest.mark.parametrize("change", [{"state": "x"}, {"address": "x"}, {"port": 65536}])
def test_a_dump_with_a_wrong_filter_says_so(
    stub: agent_pb2_grpc.AgentServiceStub, change: dict[str, Any]
) -> None:
    code, _detail = code_of(lambda: list(stub.Dump(pb.DumpRequest(**change), timeout=30)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


@needs_bpf
def test_a_long_dump_comes_in_pieces_and_dumps_that_nobody_reads_leave_room_for_look_ups(
    pins: Path, tmp_path: Path
) -> None:
    with tracker_map(60000) as large:
        for number in range(30000):
            port, other = 1024 + number, ("192.0.2.1", 80, "203.0.113.1", 1024 + number)
            Wanted(("10.0.0.2", port, "192.0.2.1", 80), other).write(large)
        (pins / "conntrack_live").unlink()
        bpf.obj_pin(large, str(pins / "conntrack_live"))
    flow = Wanted(("10.0.0.2", 1024, "192.0.2.1", 80), ("192.0.2.1", 80, "203.0.113.1", 1024))
    with listening(Maps(str(pins)), tmp_path) as stub:
        slow = [stub.Dump(pb.DumpRequest(), timeout=60) for _number in range(4)]
        firsts = [next(dump) for dump in slow]
        assert {len(first.translations) for first in firsts} == {512}
        assert code_of(lambda: next(stub.Dump(pb.DumpRequest(), timeout=30)))[0] == (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert stub.Lookup(request(flow), timeout=30).state == "live"
        for dump in slow[1:]:
            dump.cancel()
        rest = sum(len(answer.translations) for answer in slow[0])
    assert 512 + rest == 30000


@needs_bpf
def test_a_map_that_a_load_has_replaced_is_read_from_then_on(
    pins: Path, stub: agent_pb2_grpc.AgentServiceStub
) -> None:
    assert stub.Lookup(request(MASQUERADED), timeout=30).state == "live"
    with tracker_map(128) as other:
        (pins / "conntrack_live").unlink()
        bpf.obj_pin(other, str(pins / "conntrack_live"))
    assert code_of(lambda: stub.Lookup(request(MASQUERADED), timeout=30))[0] == (
        grpc.StatusCode.NOT_FOUND
    )


_UNPRIVILEGED = """
import encodings.ascii, json, os, sys  # all of the library that is needed later, while it is ours
from btfleet._kernel.errors import LoaderError
from btfleet._kernel.conntrack.table import Filter
from btfleet.poller.maps import Maps
os.setgroups([])
os.setresgid(int(sys.argv[2]), int(sys.argv[2]), int(sys.argv[2]))
os.setresuid(65534, 65534, 65534)
maps = Maps(sys.argv[1])
try:
    record = maps.record()
    flows = sum(1 for flow in maps.flows(["live", "closed"], Filter()))
    print(json.dumps([record["tier"], flows, maps.counters()["live_full"],
                      {state: fill.entries for state, fill in maps.fills().items()}]))
except PermissionError:
    print("refused")
"""


@needs_bpf
def test_the_group_reads_everything_without_any_privilege_and_others_nothing(
    pins: Path, tmp_path: Path, checkout: Path
) -> None:
    gid = 54321
    access.grant(str(pins), gid)
    for folder in (tmp_path, tmp_path / "bpf"):
        folder.chmod(0o755)

    def run(group: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _UNPRIVILEGED, str(pins), str(group)],
            env={**os.environ, "PYTHONPATH": str(checkout / "agent")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    expected = ["core/kprobe", 3, possible_cpus(), {"live": 4, "closed": 2}]
    assert json.loads(run(gid)) == expected
    assert run(gid + 1) == "refused"


# --- metrics ------------------------------------------------------------------------------------


def snapshot(token: str = "/nowhere") -> Snapshot:  # noqa: S107 a path
    director = Director()
    director.publish({NO_UDP6: content(udpv6_enabled=False)})
    trusted = verify.update(verify.start(director.first_root), director.answer(), HOST, NOW)
    state = ApplyState(NO_UDP6, 1, "", APPLIED, "", "", NOW)
    stats = PollStats(polls=3, failures={"service": 2})
    return Snapshot(stats, 5.0, trusted, False, True, [state], {"CONNTRACK": 0.0}, token)


def text_of(collector: AgentCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return str(generate_latest(registry).decode())


@needs_bpf
def test_metrics_have_the_tracker_and_the_agent(pins: Path, tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    text = text_of(AgentCollector(lambda: snapshot(str(tmp_path / "token")), Maps(str(pins))))
    assert 'btfleet_tracker_map_entries{map="live"} 4.0' in text
    assert 'btfleet_tracker_map_max_entries{map="closed"} 64.0' in text
    full = float(possible_cpus())
    assert f'btfleet_tracker_events_total{{event="live_full"}} {full}' in text
    assert 'btfleet_agent_failed_polls_total{kind="service"} 2.0' in text
    assert "btfleet_agent_targets_version 2.0" in text
    assert re.search(r'config_phase\{.*phase="APPLIED".*\} 1.0', text)
    assert re.search(r'config_phase\{.*phase="FAILED".*\} 0.0', text)
    assert "btfleet_agent_token_age_seconds" in text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert len(names) > 20


def become_netlink(pins: Path) -> None:
    with bpf.closing(bpf.obj_get(str(pins / "loaded"))) as fd:
        write_record(fd, tier="netlink", lifecycle="held", degraded="lockdown")


@needs_bpf
def test_metrics_of_the_tier_netlink_say_how_its_process_does(pins: Path) -> None:
    text = text_of(AgentCollector(snapshot, Maps(str(pins))))
    assert "btfleet_tracker_degraded 0.0" in text
    assert "btfleet_follower" not in text
    become_netlink(pins)
    text = text_of(AgentCollector(snapshot, Maps(str(pins))))
    assert "btfleet_tracker_degraded 1.0" in text
    assert "btfleet_follower_alive 0.0" in text
    with bpf.closing(pulse.make_map()) as fd:
        bpf.obj_pin(fd, str(pins / pulse.PIN))
        said = Pulse(time.monotonic_ns(), 1, 2, namespaces=3, overruns=4, events=5, no_entry=6)
        pulse.write(fd, said)
    text = text_of(AgentCollector(snapshot, Maps(str(pins))))
    assert "btfleet_follower_alive 1.0" in text
    assert "btfleet_follower_namespaces 3.0" in text
    assert "btfleet_follower_overruns_total 4.0" in text
    assert 'btfleet_follower_unfollowed_namespaces{reason="no_entry"} 6.0' in text
    assert 'btfleet_follower_unfollowed_namespaces{reason="no_descriptor"} 0.0' in text


@needs_bpf
def test_entries_are_not_counted_at_every_scrape(pins: Path) -> None:
    clock = [0.0]
    maps = Maps(str(pins), clock=lambda: clock[0])
    assert maps.fills()["live"].entries == 4
    with bpf.closing(bpf.obj_get(str(pins / "conntrack_live"))) as fd:
        MASQUERADED_V6.write(fd)
    assert maps.fills()["live"].entries == 4
    clock[0] = 11.0
    assert maps.fills()["live"].entries == 6


def test_metrics_without_a_tracker(tmp_path: Path) -> None:
    text = text_of(AgentCollector(snapshot, Maps(str(tmp_path / "none"))))
    assert "btfleet_tracker_loaded 0.0" in text
    assert "btfleet_tracker_map" not in text


def test_a_port_that_is_taken_is_an_error_and_a_stopped_server_can_start_again(
    tmp_path: Path,
) -> None:
    collector = AgentCollector(snapshot, Maps(str(tmp_path / "none")))
    one = MetricsServer(("127.0.0.1", 0), collector)
    one.start()
    assert one.port
    other = MetricsServer(("127.0.0.1", one.port), collector)
    with pytest.raises(OSError, match="in use"):
        other.start()
    one.stop()
    assert one.port is None
    other.start()
    other.stop()


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:btfleet|process)_[a-z_]+\b", text))


@needs_bpf
def test_all_metrics_of_dashboard_alerts_and_guide_exist(
    pins: Path, tmp_path: Path, checkout: Path
) -> None:
    (tmp_path / "token").touch()
    server = MetricsServer(
        ("127.0.0.1", 0),
        AgentCollector(lambda: snapshot(str(tmp_path / "token")), Maps(str(pins))),
    )
    text = generate_latest(server._registry).decode()
    become_netlink(pins)
    text += generate_latest(server._registry).decode()
    text += generate_latest(ServiceMetrics().registry).decode()
    known = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"}
    # Families without a sample yet are known by their comments
    known |= {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")}
    dashboard = json.loads((checkout / "monitoring/dashboard.json").read_text())
    rules = yaml.safe_load((checkout / "monitoring/alerts.yml").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for query in queries:
        assert names_in(query)
        assert names_in(query) <= known
    guide = (checkout / "docs/agent.md").read_text()
    prefixes = ("btfleet_agent_", "btfleet_follower_", "btfleet_tracker_")
    ours = {name for name in known if name.startswith(prefixes)}
    assert ours <= names_in(guide) - {"btfleet_remote_config_keys"} <= known


def test_promtool_takes_alerts_and_queries(checkout: Path, tmp_path: Path) -> None:
    dashboard = json.loads((checkout / "monitoring/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$instance", ".*")}
        for number, query in enumerate(queries)
    ]
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert shutil.which("promtool"), "promtool not found: run `make build/tools/promtool`"
    for path in (checkout / "monitoring/alerts.yml", panels):
        done = subprocess.run(
            ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_alert_rules_are_whole(checkout: Path) -> None:
    rules = yaml.safe_load((checkout / "monitoring/alerts.yml").read_text())
    assert set(rules) == {"groups"}
    for group in rules["groups"]:
        assert set(group) <= {"name", "interval", "rules"}
        for rule in group["rules"]:
            assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
            assert re.fullmatch(r"\d+[smhd]", rule["for"])
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
            assert rule["expr"].count("(") == rule["expr"].count(")")
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names))
