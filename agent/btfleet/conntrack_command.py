# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet conntrack dump|lookup|watch`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from itertools import chain, islice
from typing import Iterator

from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import netns, reading, table
from btfleet._kernel.conntrack.layout import LIVE
from btfleet._kernel.conntrack.table import Filter, Flow
from btfleet._kernel.errors import TrackerError

_HEADER = ("NETNS", "PROTO", "ORIGINAL", "REPLY", "STATE")


def run(options: argparse.Namespace) -> int:
    """Runs one of the three."""
    actions = {"dump": _dump, "lookup": _lookup, "watch": _watch}
    return actions[options.action](options)


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


def _filter(options: argparse.Namespace) -> Filter:
    return Filter.parse(
        netns_number(options.netns), options.address, options.port, options.protocol
    )


# --- dump -------------------------------------------------------------------------------------


def _dump(options: argparse.Namespace) -> int:
    pins = Pins()
    wanted = _filter(options)
    states = ("live", "closed") if options.state == "all" else (options.state,)
    if options.limit is not None and options.limit < 0:
        raise TrackerError(f"limit is {options.limit}, needed: 0 or more")
    if options.json and wanted.is_empty and options.limit is None:
        sys.stdout.flush()
        for piece in chain.from_iterable(reading.json_lines(pins, state) for state in states):
            sys.stdout.buffer.write(piece)
        return 0
    maps = {state: reading.entries(pins, reading.MAPS[state]) for state in states}
    found = (flow for state, data in maps.items() for flow in table.select(data, state, wanted))
    chosen = islice(found, options.limit)
    if options.json:
        for flow in chosen:
            print(json.dumps(table.to_dict(flow)))
        return 0
    names = netns.names()
    rows = [row(flow, names) for flow in chosen]
    for line in aligned([_HEADER, *rows]):
        print(line)
    return 0


def endpoint(address: str, port: int) -> str:
    """Address and port as one text, as in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def direction(flow: Flow, ends: tuple[str, int, str, int]) -> str:
    """One direction of a flow, for a person."""
    src, sport, dst, dport = ends
    if table.protocol_name(flow.protocol).startswith("icmp"):
        return f"{src} -> {dst} id {sport} type {dport >> 8}"
    return f"{endpoint(src, sport)} -> {endpoint(dst, dport)}"


def row(flow: Flow, names: dict[int, str]) -> tuple[str, ...]:
    """The columns of a flow."""
    where = names.get(flow.netns, str(flow.netns))
    if flow.zone:
        where += f" zone {flow.zone}"
    state = flow.state
    if flow.closed_ns:
        state += f" {max(0, time.monotonic_ns() - flow.closed_ns) // 10**9} s ago"
    return (
        where,
        table.protocol_name(flow.protocol),
        direction(flow, flow.orig),
        direction(flow, flow.reply),
        state,
    )


def aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows as lines with straight columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for columns in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(columns, widths)).rstrip()


# --- look-up ----------------------------------------------------------------------------------

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([0-9.]+)):(\d{1,5})")


def parse_endpoint(text: str) -> tuple[str, int]:
    """Address and port; raises TrackerError."""
    match = _ENDPOINT.fullmatch(text)
    if not match or int(match.group(3)) > 65535:
        raise TrackerError(
            f"{text!r} is no address with a port: write 192.0.2.1:80 or [2001:db8::1]:80"
        )
    return match.group(1) or match.group(2), int(match.group(3))


def _lookup(options: argparse.Namespace) -> int:
    pins = Pins()
    src, sport = parse_endpoint(options.source)
    dst, dport = parse_endpoint(options.destination)
    number = netns_number(options.netns)
    if not 0 <= options.zone <= 65535:
        raise TrackerError(f"zone is {options.zone}, needed: a number from 0 to 65535")
    key = table.make_key(
        netns.own() if number is None else number,
        options.zone,
        table.protocol_number(options.protocol),
        src,
        sport,
        dst,
        dport,
    )
    maps = {state: pins.open_map(name) for state, name in reading.MAPS.items()}
    flow = table.lookup(maps, key)
    if flow is None:
        print("not translated", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(table.to_dict(flow)))
    else:
        for line in aligned([_HEADER, row(flow, netns.names())]):
            print(line)
    return 0


# --- watch ------------------------------------------------------------------------------------

_LONGEST_INTERVAL = 86400


def changes(before: dict[Flow, None], now: dict[Flow, None]) -> Iterator[tuple[str, Flow]]:
    """What came and what went, each with its sign."""
    for flow in now:
        if flow not in before:
            yield "+", flow
    for flow in before:
        if flow not in now:
            yield "-", flow


def _watch(options: argparse.Namespace) -> int:
    if not 0 < options.interval <= _LONGEST_INTERVAL:
        raise TrackerError(
            f"interval is {options.interval}, needed: more than 0 and up to {_LONGEST_INTERVAL} "
            "seconds"
        )
    pins = Pins()
    wanted = _filter(options)
    before: dict[Flow, None] = {}
    while True:
        # Opened anew each time: a load with other sizes brings another map
        now = dict.fromkeys(table.select(reading.entries(pins, LIVE), "live", wanted))
        names = netns.names()
        for sign, flow in changes(before, now):
            if options.json:
                print(
                    json.dumps({"event": "new" if sign == "+" else "closed", **table.to_dict(flow)})
                )
            else:
                print(sign, "  ".join(row(flow, names)[:4]))
        sys.stdout.flush()
        before = now
        time.sleep(options.interval)
