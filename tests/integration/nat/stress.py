# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows that come and go on a processor in the middle of others that end there.

Packets are steered to the last processor (RPS), in bursts, so that each burst interrupts what runs
there: a process that flushes the table, or the kernel where it drops what has timed out. The table
is small, so that a new flow also ends an old one. Afterwards nothing may be live that the kernel's
table lacks, and nothing may be missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator

from . import comparison, netns, readings
from .commands import run
from .errors import NatError
from .report import Report

CLIENT, ROUTER, SERVER = (f"{netns.PREFIX}stress-{part}" for part in ("c", "r", "s"))
WAYS = FLUSH, TIMEOUT = "flush", "timeout"
# 198.18.0.0/15 is for benchmarks; the server throws it away without an answer
FIRST_TARGET, TARGETS = 0xC6120001, 60000
PORTS = 60000
BURST, PAUSE = 32, 0.001
# How many flows the kernel's table takes, of all namespaces
LIMIT = "net/netfilter/nf_conntrack_max", "64"
# Seconds; the kernel looks for what has timed out from time to time only
UDP_TIMEOUT = "1"
EMPTY_WITHIN = 300.0

LINKS = f"""
link add rc netns {ROUTER} type veth peer name eth0 netns {CLIENT}
link add rs netns {ROUTER} type veth peer name eth0 netns {SERVER}
"""
LINES = {
    CLIENT: """
address add 10.99.1.2/24 dev eth0
link set eth0 up
route add default via 10.99.1.1
""",
    ROUTER: """
address add 10.99.1.1/24 dev rc
address add 192.0.2.1/24 dev rs
link set rc up
link set rs up
route add 198.18.0.0/15 via 192.0.2.2
""",
    SERVER: """
address add 192.0.2.2/24 dev eth0
link set eth0 up
route add blackhole 198.18.0.0/15
""",
}
RULES = """
table ip stress {
    chain out { type nat hook postrouting priority 100; oifname "rs" masquerade; }
}
"""
SYSCTLS = {"net/ipv4/ip_forward": "1"}
_UNREPLIED = "net/netfilter/nf_conntrack_udp_timeout"

# ctnetlink: IPCTNL_MSG_CT_DELETE without a tuple flushes the namespace's table
_FLUSH_REQUEST = struct.pack("=IHHII", 20, 1 << 8 | 2, 0x1 | 0x4, 1, 0) + bytes(4)


@contextlib.contextmanager
def built() -> Iterator[None]:
    """Three namespaces, while they are needed."""
    names = (CLIENT, ROUTER, SERVER)
    _remove()
    limit = netns.write_sysctl(*LIMIT)
    try:
        run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in names) + LINKS)
        for name in names:
            with netns.inside(name):
                run(["ip", "-batch", "-"], LINES[name])
        with netns.inside(ROUTER):
            run(["nft", "-f", "-"], RULES)
            for name, value in SYSCTLS.items():
                netns.write_sysctl(name, value)
            mask = f"{1 << (os.cpu_count() or 1) - 1:x}"
            set_mask = f"echo {mask} >/sys/class/net/rc/queues/rx-0/rps_cpus"
            run(["ip", "netns", "exec", ROUTER, "sh", "-c", set_mask])
        yield
    finally:
        if limit is not None:
            netns.write_sysctl(LIMIT[0], limit)
        _remove()


def _remove() -> None:
    netns.forget()
    for name in (CLIENT, ROUTER, SERVER):
        if (netns.RUN / name).exists():
            run(["ip", "netns", "delete", name])


def _child(cpu: int, where: str, work: Callable[[], None]) -> int:
    """A process of its own, on one processor and in one namespace, until it is killed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.sched_setaffinity(0, {cpu})
        netns.enter(where)
        work()
    finally:
        os._exit(1)


def _send() -> None:
    """UDP packets, each of another flow, as fast as can be."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        number = 0
        while True:
            target = socket.inet_ntoa(struct.pack(">I", FIRST_TARGET + number // PORTS % TARGETS))
            for port in range(1024, 1024 + PORTS):
                if port % BURST == 0:
                    time.sleep(PAUSE)
                header = struct.pack(">HHHH", port, 7, 8, 0)
                with contextlib.suppress(OSError):  # the queue is full: the next one
                    sock.sendto(header, (target, 0))
            number += PORTS


def _flush() -> None:
    """The namespace's table, again and again, each time when there is something in it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        sock.bind((0, 0))
        while True:
            time.sleep(0.01)
            sock.sendto(_FLUSH_REQUEST, (0, 0))
            sock.recv(1 << 12)


def _wait_until_empty() -> None:
    """All has timed out; the last of it goes when somebody looks at it."""
    end = time.monotonic() + EMPTY_WITHIN
    with netns.inside(ROUTER):
        while time.monotonic() < end:
            if not run(["conntrack", "-L"]).strip():
                return
            time.sleep(1)
    raise NatError(f"the kernel's table is not empty after {EMPTY_WITHIN:.0f} s")


def run_all(report: Report, options: argparse.Namespace) -> None:
    """Make them for that long, then look at both tables.

    What the dump has too much or too little may be put right within `repaired_within` seconds.
    """
    last = (os.cpu_count() or 1) - 1
    if last < 1:
        raise NatError("this host has one processor: the stress needs two")
    with built():
        with netns.inside(ROUTER):
            netns.write_sysctl(_UNREPLIED, UDP_TIMEOUT if options.way == TIMEOUT else "600")
        children = [_child(0, CLIENT, _send)]
        if options.way == FLUSH:
            children.append(_child(last, ROUTER, _flush))
        time.sleep(options.seconds)
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        time.sleep(1)  # packets that are in a queue yet
        if options.way == TIMEOUT:
            _wait_until_empty()
        ours = {netns.inode(ROUTER)}
        begin = time.monotonic()
        result = _compare(options.dump_command, ours)
        while not result.ok and time.monotonic() - begin < options.repaired_within:
            time.sleep(2)
            result = _compare(options.dump_command, ours)
        took = round(time.monotonic() - begin)
        report.nothing("live but not in conntrack", [str(flow) for flow in result.extra])
        report.nothing("in conntrack but not live", [str(flow) for flow in result.missing])
        report.nothing("printed twice", [str(flow) for flow in result.twice])
        report.add("both tables agree", result.ok, {"live": len(result.agreed), "seconds": took})


def _compare(dump: str, ours: set[int]) -> comparison.Comparison:
    before = readings.table()
    dumped = [flow for flow in readings.dump(dump, "live")["live"] if flow.netns in ours]
    after = readings.table()
    return comparison.compare(
        {flow for flow in before.translated if flow.netns in ours},
        dumped,
        {flow for flow in after.translated if flow.netns in ours},
    )
