# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is answered by a dead flow: no flow with its tuple, no next owner of a number."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator

from . import netns, stress
from .commands import run
from .errors import NatError
from .report import Report

SOURCE, SPORT = "10.99.1.2", 4444
TARGET, DPORT = "198.18.0.1", 7
NEXT = f"{netns.PREFIX}next-"
# Namespaces that are made, and how long is waited for one to be torn down
TRIES, SECONDS = 200, 60.0
# Exit codes of a look-up that has no answer at all: wrong usage, and a failure
WRONG = (2, 3)
UNTRANSLATED = """
flush ruleset
table ip plain {
    chain through { type filter hook forward priority 0; ct state new counter; }
}
"""


def check(report: Report, lookup: str) -> None:
    """A tuple with and without a translation, and a namespace's number with another owner."""
    with stress.built():
        _send()
        report.add("a live flow is known", _state(lookup, stress.ROUTER) == "live")
        with netns.inside(stress.ROUTER):
            run(["conntrack", "-F"])
        report.add("a closed flow is known", _state(lookup, stress.ROUTER) == "closed")
        with netns.inside(stress.ROUTER):
            run(["nft", "-f", "-"], UNTRANSLATED)
        _send()
        with netns.inside(stress.ROUTER):
            there = f"sport={SPORT}" in run(["conntrack", "-L"])
        report.add("its tuple lives without a translation", there)
        state = _state(lookup, stress.ROUTER)
        report.add("and has no answer any more", state is None, state)
        with netns.inside(stress.ROUTER):
            run(["conntrack", "-F"])
            run(["nft", "-f", "-"], f"flush ruleset\n{stress.RULES}")
        _send()
        report.add("a translation comes again", _state(lookup, stress.ROUTER) == "live")
        number = netns.inode(stress.ROUTER)
    with _next_owner(number) as name:
        report.add("the namespace's number is used again", bool(name))
        state = _state(lookup, name) if name else "no namespace to ask"
        report.add("whoever has it now inherits nothing", state is None, state)


def _send() -> None:
    """One packet from the client, which the kernel has handled when this returns."""
    with (
        netns.inside(stress.CLIENT),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.bind((SOURCE, SPORT))
        sock.sendto(b"x", (TARGET, DPORT))
    time.sleep(1)


def _state(lookup: str, name: str) -> str | None:
    """What the look-up says of the flow in that namespace: live, closed, or None."""
    words = [*shlex.split(lookup), "--netns", name, "--protocol", "udp", "--json"]
    words += [f"{SOURCE}:{SPORT}", f"{TARGET}:{DPORT}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode in WRONG:
        raise NatError(f"'{lookup}' ended with {done.returncode}: {done.stderr.strip()}")
    return next((state for state in ("live", "closed") if f'"{state}"' in done.stdout), None)


@contextlib.contextmanager
def _next_owner(number: int) -> Iterator[str]:
    """A namespace with the number of one that was removed; "" if none gets it."""
    made: list[str] = []
    found = ""
    end = time.monotonic() + SECONDS
    try:
        while not found and len(made) < TRIES and time.monotonic() < end:
            name = f"{NEXT}{len(made)}"
            run(["ip", "netns", "add", name])
            made.append(name)
            found = name if netns.inode(name) == number else ""
            time.sleep(0.1)
        yield found
    finally:
        for name in made:
            run(["ip", "netns", "delete", name])
