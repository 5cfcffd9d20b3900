# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace that translates what is sent from it, and what its kernel says of that.

conntrack(8) is the oracle: no code of ours reads the kernel's table here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.unit.kernel_access import namespace, needs_bpf

_RULES = """
table inet nat {
    chain out {
        type nat hook postrouting priority 100;
        meta nfproto ipv4 udp dport != 53 snat ip to 10.9.0.2
        meta nfproto ipv6 udp dport != 53 snat ip6 to fd09::2
    }
}
"""

# One socket, many destinations: the flows differ in nothing else
_SENDER = """
import socket, sys, time
rate, seconds, first = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
source.bind(("10.9.0.1", 40000))
begin, sent = time.monotonic(), 0
while (age := time.monotonic() - begin) < seconds:
    while sent < rate * age:
        number = first + sent
        source.sendto(b"x", (f"10.9.{1 + number // 50000}.7", 10000 + number % 50000))
        sent += 1
    time.sleep(0.002)
print(sent)
"""

_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")

End = tuple[str, int, str, int]


# For tests that make real flows
needs_nat = needs_bpf


@dataclass
class Router:
    """The namespace at `path`."""

    path: str

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command in it."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *command],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def set_up(self) -> None:
        """An interface that swallows everything, and NAT on the way to it."""
        commands = [
            "link add d0 type veth peer name d1",
            "link set d0 arp off",
            "link set d1 up",
            "link set d0 up",
            "address add 10.9.0.1/16 dev d0",
            "address add fd09::1/64 dev d0 nodad",
        ]
        self.run("ip", "-batch", "-", text="\n".join(commands) + "\n")
        self.run("nft", "-f", "-", text=_RULES)

    def send(self, seconds: float, rate: float = 1000, first: int = 0) -> int:
        """New flows for some time; how many."""
        return self.sent(self.sending(rate, seconds, first))

    def sending(self, rate: float, seconds: float, first: int = 0) -> subprocess.Popen[str]:
        """New flows for some time, beside the test."""
        arguments = [str(rate), str(seconds), str(first)]
        return subprocess.Popen(
            ["nsenter", f"--net={self.path}", sys.executable, "-c", _SENDER, *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )

    def sent(self, sender: subprocess.Popen[str]) -> int:
        """Waits for its end; how many flows it made."""
        output, _errors = sender.communicate(timeout=120)
        assert sender.returncode == 0
        return int(output)

    def table(self) -> set[tuple[End, End]]:
        """The translated flows that the kernel has."""
        found = set()
        for family in ("ipv4", "ipv6"):
            for line in self.run("conntrack", "-L", "-f", family).splitlines():
                orig, reply = (
                    (src, int(sport), dst, int(dport))
                    for src, dst, sport, dport in _TUPLE.findall(line)
                )
                if (orig[0], orig[1]) != (reply[2], reply[3]) or orig[2] != reply[0]:
                    found.add((orig, reply))
        return found


@contextmanager
def router() -> Iterator[Router]:
    """A namespace that goes with the block."""
    with namespace() as path:
        made = Router(path)
        made.set_up()
        yield made


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
