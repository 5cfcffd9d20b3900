# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse `conntrack -L -o extended`.

Not `-o xml`: conntrack 1.4.7 leaves the ICMP id, type and code out of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .flow import ICMP, Flow, Side, canonical, is_translated, protocol_name

# Fields that belong to a direction; everything else is the flow's own.
PORT_FIELDS = (("sport", "dport"), ("srckey", "dstkey"))


def parse_line(line: str, netns: int) -> Flow:
    """One line of the listing; ValueError if it is not understood."""
    words = line.split()
    if len(words) < 5 or words[0] not in ("ipv4", "ipv6"):
        raise ValueError(f"not a conntrack line: {line.strip()!r}")
    family = words[0]
    protocol = protocol_name(int(words[3]))
    sides: list[dict[str, str]] = []
    zone, zone_dir = 0, ""
    for word in words[4:]:
        name, equals, value = word.partition("=")
        if not equals:
            continue
        if name == "src":
            sides.append({})
        if name == "zone":
            zone = int(value)
        elif name in ("zone-orig", "zone-reply"):
            zone, zone_dir = int(value), name.removeprefix("zone-")
        elif sides:
            # The id= at the end (-o id) comes after the reply's own.
            sides[-1].setdefault(name, value)
    if len(sides) != 2:
        raise ValueError(f"not two directions: {line.strip()!r}")
    try:
        orig, reply = (_side(fields, family, protocol) for fields in sides)
    except KeyError as error:
        raise ValueError(f"no {error} in: {line.strip()!r}") from error
    return Flow(netns, zone, zone_dir, family, protocol, orig, reply)


def _side(fields: dict[str, str], family: str, protocol: str) -> Side:
    src, dst = canonical(family, fields["src"]), canonical(family, fields["dst"])
    if protocol in ICMP:
        return Side(src, dst, (int(fields["id"]), int(fields["type"]), int(fields["code"])))
    for source, destination in PORT_FIELDS:
        if source in fields:
            return Side(src, dst, (int(fields[source], 0), int(fields[destination], 0)))
    return Side(src, dst, (0, 0))


def parse(text: str, netns: int) -> list[Flow]:
    """The whole listing of a namespace and family."""
    return [parse_line(line, netns) for line in text.splitlines() if line.strip()]


def translated(flows: Iterable[Flow]) -> set[Flow]:
    """Only the NATed ones."""
    return {flow for flow in flows if is_translated(flow)}
