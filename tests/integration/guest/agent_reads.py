# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the poller agent reads the maps that the command reads: its dump and its map fill.

    python3 -m guest.agent_reads

Exit code 1, and a line, where they differ. The agent has to run, and no flow to come or go.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

from .commands import GuestError, bpftool, run

METRICS = "http://127.0.0.1:9463/metrics"
# A count of entries may be this old (seconds)
PATIENCE = 60
# As a member of the group, with the agent's own libraries and no privilege
DUMP = """
import json, grpc
from google.protobuf.json_format import MessageToDict
from btfleet.agent.v1 import agent_pb2, agent_pb2_grpc
with grpc.insecure_channel("unix:/run/btfleet-agent/agent.sock") as channel:
    stub = agent_pb2_grpc.AgentServiceStub(channel)
    for piece in stub.Dump(agent_pb2.DumpRequest(state="live"), timeout=120):
        for flow in piece.translations:
            print(json.dumps(MessageToDict(flow)))
"""


def ends(flow: dict[str, dict[str, Any]], side: str) -> tuple[object, ...]:
    """One direction; a port of 0 is left out in the messages' JSON.

    The command gives ICMP its own words; the messages have id, and type with code, for the ports.
    """
    one = flow[side]
    if "type" in one:
        one = {**one, "sport": one["id"], "dport": one["type"] << 8 | one["code"]}
    return tuple(one.get(name, 0) for name in ("src", "sport", "dst", "dport"))


def key(flow: dict[str, Any]) -> tuple[object, ...]:
    """What both dumps have in common."""
    return (flow["netns"], flow["protocol"], ends(flow, "orig"), ends(flow, "reply"))


def agent_dump() -> set[tuple[object, ...]]:
    """What the agent streams over its socket."""
    prefix = ["setpriv", "--reuid=nobody", "--regid=btfleet", "--clear-groups", "--inh-caps=-all"]
    done = subprocess.run(
        [*prefix, "python3", "-c", DUMP],
        env={"PYTHONPATH": "/opt/btfleet/current/lib", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode != 0:
        raise GuestError(f"the agent does not give its dump: {done.stderr.strip()[-300:]}")
    return {key(json.loads(line)) for line in done.stdout.splitlines()}


def metric(name: str, *labels: str) -> int:
    """The value of the one sample that has these labels."""
    with urllib.request.urlopen(METRICS, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    for line in lines:
        if line.startswith(name + "{") and all(label in line for label in labels):
            return int(float(line.rsplit(" ", 1)[1]))
    raise GuestError(f"the metrics have no {name} with {labels}")


def check() -> str:
    """What was compared."""
    command = run("btfleet", "conntrack", "dump", "--json").splitlines()
    expected = {key(json.loads(line)) for line in command}
    found = agent_dump()
    if found != expected or not found:
        differing = sorted(map(str, found ^ expected))[:5]
        raise GuestError(
            f"the agent has {len(found)} flows, the command {len(expected)}: {differing}"
        )
    entries = len(bpftool("map", "dump", "pinned", "/sys/fs/bpf/btfleet/conntrack_live"))
    end = time.monotonic() + PATIENCE
    while (counted := metric("btfleet_tracker_map_entries", 'map="live"')) != entries:
        if time.monotonic() > end:
            raise GuestError(f"the agent counts {counted} entries, bpftool {entries}")
        time.sleep(2)
    return f"{len(found)} flows, {entries} entries: agent, command and bpftool agree"


def main() -> int:
    """The exit code."""
    try:
        print(check())
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
