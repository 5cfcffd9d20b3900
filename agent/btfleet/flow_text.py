# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations as a person reads them, and namespaces as a person calls them."""

from __future__ import annotations

from btfleet._kernel.conntrack import netns
from btfleet._kernel.conntrack.flow import Flow, protocol_name
from btfleet._kernel.errors import TrackerError

TYPE_CHECKING = False  # typing's own costs a look-up more than all the rest
if TYPE_CHECKING:
    from typing import Iterator

HEADER = ("NETNS", "PROTO", "ORIGINAL", "REPLY", "STATE")


def netns_number(text: str | None) -> int | None:
    """The inode number for what a user calls a namespace; raises TrackerError."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    for number, name in netns.names().items():
        if name == text:
            return number
    raise TrackerError(
        f"no network namespace {text}: give an inode number, or a name that `ip netns list` shows"
    )


def endpoint(address: str, port: int) -> str:
    """Address and port as one text, as in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def direction(flow: Flow, ends: tuple[str, int, str, int]) -> str:
    """One direction of a flow, for a person."""
    src, sport, dst, dport = ends
    if protocol_name(flow.protocol).startswith("icmp"):
        return f"{src} -> {dst} id {sport} type {dport >> 8}"
    return f"{endpoint(src, sport)} -> {endpoint(dst, dport)}"


def row(flow: Flow, names: dict[int, str]) -> tuple[str, ...]:
    """The columns of a flow."""
    where = names.get(flow.netns, str(flow.netns))
    if flow.zone:
        where += f" zone {flow.zone}"
    state = flow.state
    if flow.closed_seconds_ago is not None:
        state += f" {flow.closed_seconds_ago} s ago"
    if flow.netns_gone:
        state += ", its namespace is gone"
    return (
        where,
        protocol_name(flow.protocol),
        direction(flow, flow.orig),
        direction(flow, flow.reply),
        state,
    )


def aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows as lines with straight columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for columns in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(columns, widths)).rstrip()
