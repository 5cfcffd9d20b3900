# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a guest, as root: a client behind a masquerading router keeps connections to a server.

Prints every translation twice, from `btfleet conntrack dump` and from `conntrack -L`; exit code 0
if the two agree.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack

CLIENT, ROUTER, SERVER = "demo-client", "demo-router", "demo-server"
CONNECTIONS = 4

SETUP = f"""
ip netns add {CLIENT}; ip netns add {ROUTER}; ip netns add {SERVER}
ip link add cr netns {CLIENT} type veth peer name rc netns {ROUTER}
ip link add sr netns {SERVER} type veth peer name rs netns {ROUTER}
ip -n {CLIENT} addr add 10.99.1.2/24 dev cr; ip -n {ROUTER} addr add 10.99.1.1/24 dev rc
ip -n {SERVER} addr add 10.99.2.2/24 dev sr; ip -n {ROUTER} addr add 10.99.2.1/24 dev rs
for link in {CLIENT}:cr {ROUTER}:rc {ROUTER}:rs {SERVER}:sr; do
    ip -n "${{link%:*}}" link set "${{link#*:}}" up
done
ip -n {CLIENT} route add default via 10.99.1.1
ip netns exec {ROUTER} sysctl -qw net.ipv4.ip_forward=1
ip netns exec {ROUTER} nft -f - <<RULES
table ip nat {{
    chain out {{ type nat hook postrouting priority srcnat; oifname "rs" masquerade; }}
    chain in {{
        type nat hook prerouting priority dstnat
        ip daddr 10.99.1.1 tcp dport 8080 dnat to 10.99.2.2:80
    }}
}}
RULES
"""

LISTEN = """
import socket
s = socket.create_server(("10.99.2.2", 80))
print("ready", flush=True)
kept = []
while True:
    kept.append(s.accept())
"""

CONNECT = f"""
import socket, sys
kept = [socket.create_connection(("10.99.2.2", 80), 20) for _ in range({CONNECTIONS})]
kept += [socket.create_connection(("10.99.1.1", 8080), 20) for _ in range({CONNECTIONS})]
print("ready", flush=True)
sys.stdin.read()
"""

Row = tuple[str, str, str]


def background(stack: ExitStack, namespace: str, code: str) -> None:
    """Starts Python code in a namespace and returns once it says that it is ready."""
    process = stack.enter_context(
        subprocess.Popen(
            ["ip", "netns", "exec", namespace, "python3", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.kill)
    if process.stdout is None or process.stdout.readline().strip() != "ready":
        sys.exit(f"demo: the traffic in {namespace} did not start")


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def arrow(ends: dict[str, object]) -> str:
    """One direction of a flow."""
    return f"{ends['src']}:{ends['sport']} -> {ends['dst']}:{ends['dport']}"


def from_tracker() -> set[Row]:
    """The translations of the router's namespace, from the tracker."""
    lines = output("btfleet", "conntrack", "dump", "--json", "--netns", ROUTER).splitlines()
    rows = set()
    for flow in map(json.loads, lines):
        rows.add((flow["protocol"], arrow(flow["orig"]), arrow(flow["reply"])))
    return rows


def from_conntrack() -> set[Row]:
    """The same from conntrack: those whose reply does not mirror the original."""
    text = output("ip", "netns", "exec", ROUTER, "conntrack", "-L", "-p", "tcp")
    way = r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)"
    rows = set()
    for line in text.splitlines():
        (src, dst, sport, dport), (rsrc, rdst, rsport, rdport) = re.findall(way, line)[:2]
        if (src, dst, sport, dport) != (rdst, rsrc, rdport, rsport):
            rows.add(
                ("tcp", f"{src}:{sport} -> {dst}:{dport}", f"{rsrc}:{rsport} -> {rdst}:{rdport}")
            )
    return rows


def show(tracker: set[Row], conntrack: set[Row]) -> None:
    """A line a translation, and who knows it."""
    width = max(len(original) for _protocol, original, _reply in tracker | conntrack)
    print(f"{'ORIGINAL':{width}}  {'REPLY':{width}}  TRACKER  CONNTRACK")
    for row in sorted(tracker | conntrack):
        known = ["yes" if row in rows else "NO" for rows in (tracker, conntrack)]
        print(f"{row[1]:{width}}  {row[2]:{width}}  {known[0]:7}  {known[1]}")


def main() -> int:
    """Sets up, connects, compares, and takes it all down again."""
    with ExitStack() as stack:
        for namespace in (CLIENT, ROUTER, SERVER):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", namespace], check=False)
        subprocess.run(["sh", "-ec", SETUP], check=True)
        background(stack, SERVER, LISTEN)
        background(stack, CLIENT, CONNECT)
        tracker, conntrack = from_tracker(), from_conntrack()
        if len(conntrack) < 2 * CONNECTIONS:
            print(f"demo: conntrack knows {len(conntrack)} translations of {2 * CONNECTIONS}")
            return 1
        show(tracker, conntrack)
        if tracker != conntrack:
            print("demo: the tracker and conntrack do NOT agree")
            return 1
        print(f"The tracker and conntrack agree on all {len(tracker)} translations.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
