# SPDX-License-Identifier: GPL-3.0-or-later
"""A client and a server in namespaces of their own, this one being the masquerading router."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

CLIENT, SERVER = "bench-client", "bench-server"
SERVER_ADDRESS = "192.0.2.2"
# UDP goes to addresses behind the server, which throws it away without an answer
NOWHERE = "198.18.0.0/15"

LINKS = f"""
link add bench-c type veth peer name eth0 netns {CLIENT}
link add bench-s type veth peer name eth0 netns {SERVER}
address add 10.99.1.1/24 dev bench-c
address add 192.0.2.1/24 dev bench-s
link set bench-c up
link set bench-s up
route add {NOWHERE} via {SERVER_ADDRESS}
"""
CLIENT_LINES = """
address add 10.99.1.2/24 dev eth0
link set eth0 up
route add default via 10.99.1.1
"""
SERVER_LINES = f"""
address add {SERVER_ADDRESS}/24 dev eth0
link set eth0 up
route add blackhole {NOWHERE}
"""
RULES = """
table ip bench {
    chain out { type nat hook postrouting priority 100; oifname "bench-s" masquerade; }
}
"""
SYSCTLS = ("net.ipv4.ip_forward=1", "net.netfilter.nf_conntrack_max=524288")


def run(words: list[str], text: str = "") -> None:
    """A command that has to work."""
    subprocess.run(words, input=text, text=True, stdout=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def built() -> Iterator[None]:
    """All of it, while it is needed."""
    for name in (CLIENT, SERVER):
        run(["ip", "netns", "add", name])
    try:
        run(["ip", "-batch", "-"], LINKS)
        run(["ip", "-netns", CLIENT, "-batch", "-"], CLIENT_LINES)
        run(["ip", "-netns", SERVER, "-batch", "-"], SERVER_LINES)
        run(["nft", "-f", "-"], RULES)
        run(["sysctl", "-q", "-w", *SYSCTLS])
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "bench"], check=False)
        for name in (CLIENT, SERVER):
            run(["ip", "netns", "delete", name])


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Work in a namespace, then come back."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{name}", os.O_RDONLY)
    _enter(other)
    try:
        yield
    finally:
        _enter(own)
        os.close(own)
        os.close(other)


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")
