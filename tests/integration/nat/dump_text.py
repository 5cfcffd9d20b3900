# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse what `btfleet conntrack dump --json` prints, strictly."""

from __future__ import annotations

import json
from typing import Any

from .errors import NatError
from .flow import ICMP, PROTOCOLS, Flow, Side, canonical, is_translated


class DumpError(NatError):
    """A line of the dump that is not as agreed."""


def parse(text: str, states: tuple[str, ...] = ("live", "closed")) -> dict[str, list[Flow]]:
    """The flows by their state, in the order printed."""
    flows: dict[str, list[Flow]] = {state: [] for state in states}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            state, flow = _parse_line(line)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DumpError(f"line {number} of the dump: {reason}: {line[:200]!r}") from error
        if state not in flows:
            raise DumpError(f"line {number} of the dump: state {state!r} was not asked for")
        flows[state].append(flow)
    return flows


def _parse_line(line: str) -> tuple[str, Flow]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    family, protocol = record["family"], record["protocol"]
    if family not in ("ipv4", "ipv6"):
        raise ValueError(f"unknown family {family!r}")
    if protocol not in PROTOCOLS and not _is_number(protocol):
        raise ValueError(f"unknown protocol {protocol!r}")
    zone_dir = record.get("zone_dir", "")
    if zone_dir not in ("", "orig", "reply") or (zone_dir == "" and "zone_dir" in record):
        raise ValueError(f"unknown zone_dir {zone_dir!r}")
    flow = Flow(
        _integer(record["netns"]),
        _integer(record["zone"]),
        zone_dir,
        family,
        protocol,
        _side(record["orig"], family, protocol),
        _side(record["reply"], family, protocol),
    )
    if not is_translated(flow):
        raise ValueError("the flow is not translated")
    return str(record["state"]), flow


def _side(fields: Any, family: str, protocol: str) -> Side:
    names = ("id", "type", "code") if protocol in ICMP else ("sport", "dport")
    src, dst = fields["src"], fields["dst"]
    for address in (src, dst):
        if canonical(family, address) != address:
            raise ValueError(f"address {address!r} is not in its usual form")
    return Side(src, dst, tuple(_integer(fields[name]) for name in names))


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a number")
    return value


def _is_number(text: Any) -> bool:
    return (
        isinstance(text, str)
        and text.isdigit()
        and int(text) < 256
        and int(text) not in PROTOCOLS.values()
    )
