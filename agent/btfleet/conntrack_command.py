# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet conntrack dump|watch`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import chain, islice
from typing import Iterator

from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import netns, reading
from btfleet._kernel.conntrack.flow import LIVE_STATE, Flow, to_dict, to_json
from btfleet._kernel.conntrack.table import Filter
from btfleet._kernel.errors import TrackerError
from btfleet.flow_text import HEADER, aligned, netns_number, row


def run(options: argparse.Namespace) -> int:
    """Runs one of the two."""
    actions = {"dump": _dump, "watch": _watch}
    return actions[options.action](options)


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
    found = chain.from_iterable([reading.flows(pins, state, wanted) for state in states])
    chosen = islice(found, options.limit)
    if options.json:
        for flow in chosen:
            print(to_json(flow))
        return 0
    names = netns.names()
    rows = [row(flow, names) for flow in chosen]
    for line in aligned([HEADER, *rows]):
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
        now = dict.fromkeys(reading.flows(pins, LIVE_STATE, wanted))
        names = netns.names()
        for sign, flow in changes(before, now):
            if options.json:
                print(json.dumps({"event": "new" if sign == "+" else "closed", **to_dict(flow)}))
            else:
                print(sign, "  ".join(row(flow, names)[:4]))
        sys.stdout.flush()
        before = now
        time.sleep(options.interval)
