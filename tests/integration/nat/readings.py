# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the kernel's own table in every namespace, and the dump under test."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from . import conntrack_text, dump_text, netns
from .commands import run
from .errors import NatError
from .flow import Flow, Key, is_translated, key_of

DUMP = "btfleet conntrack dump --json"
LOOKUP = "btfleet conntrack lookup"
COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass
class Table:
    """One reading of all the namespaces."""

    translated: set[Flow] = field(default_factory=set)
    untranslated: set[Key] = field(default_factory=set)
    namespaces: int = 0  # those with translated flows


def table() -> Table:
    """What conntrack says, namespace by namespace."""
    reading = Table()
    for inode, name in netns.everywhere().items():
        try:
            flows = _flows(inode, name)
        except NatError:
            if name.startswith("/") and not Path(name).exists():
                continue  # its last process has gone
            raise
        translated = {flow for flow in flows if is_translated(flow)}
        reading.translated |= translated
        reading.untranslated |= {key_of(flow) for flow in flows if flow not in translated}
        reading.namespaces += bool(translated)
    return reading


def _flows(inode: int, name: str) -> list[Flow]:
    flows: list[Flow] = []
    with netns.inside(name):
        if not COUNT.exists() or COUNT.read_text().strip() == "0":
            return flows
        for family in ("ipv4", "ipv6"):
            text = run(["conntrack", "-L", "-f", family, "-o", "extended"])
            try:
                flows += conntrack_text.parse(text, inode)
            except ValueError as error:
                raise NatError(
                    f"conntrack -L in {name or 'the root namespace'}: {error}"
                ) from error
    return flows


def dump(command: str, state: str) -> dict[str, list[Flow]]:
    """What the tracker says; `state` is live, closed or all."""
    states = ("live", "closed") if state == "all" else (state,)
    return dump_text.parse(run([*shlex.split(command), "--state", state]), states)


def flush() -> int:
    """Empty the tables of our namespaces and of the root namespace."""
    names = [netns.ROOT, *netns.ours()]
    for name in names:
        with netns.inside(name):
            run(["conntrack", "-F"])
    return len(names)
