# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations out of the maps: dump, filter and look-up.

A map holds both directions of a flow; a dump gives each flow once, from its original direction.
"""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from itertools import chain, islice
from operator import add
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence, Tuple

from ..bpf import bpf
from ..errors import TrackerError
from .layout import FLAG_ORIG, FLAGS_OFFSET, KEY, VALUE

LIVE_STATE, CLOSED_STATE = "live", "closed"

# IANA numbers; other protocols go by their number
PROTOCOLS = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    58: "icmpv6",
    132: "sctp",
    136: "udplite",
}
_ICMP = (1, 58)
_NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_FAMILIES = {int(socket.AF_INET): "ipv4", int(socket.AF_INET6): "ipv6"}


class Flow(NamedTuple):
    """One translation. Addresses as text, ports in host order (ICMP: see bpf/conntrack.h)."""

    netns: int
    zone: int
    zone_dir: str | None
    family: int
    protocol: int
    orig: tuple[str, int, str, int]
    reply: tuple[str, int, str, int]
    state: str
    created_ns: int
    closed_ns: int


def protocol_name(number: int) -> str:
    """The name that we print for a protocol."""
    return PROTOCOLS.get(number, str(number))


def protocol_number(text: str) -> int:
    """The number for a name or a number; raises TrackerError."""
    name = text.lower()
    if name in _NUMBERS:
        return _NUMBERS[name]
    if name.isascii() and name.isdigit() and int(name) < 256:
        return int(name)
    raise TrackerError(f"protocol is {text!r}, needed: {', '.join(_NUMBERS)} or a number below 256")


def _address(raw: bytes, family: int) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    return socket.inet_ntop(socket.AF_INET6, raw)


def _parse_address(text: str) -> tuple[int, bytes]:
    """Family and bytes; raises ValueError."""
    family = int(socket.AF_INET6 if ":" in text else socket.AF_INET)
    try:
        return family, socket.inet_pton(family, text)
    except OSError:
        raise ValueError(text) from None


def _zones(orig: int, reply: int) -> tuple[int, str | None]:
    """A flow's zone, and the direction that it holds for if not for both."""
    if orig == reply:
        return orig, None
    return (orig, "orig") if orig else (reply, "reply")


# --- one flow at a time -----------------------------------------------------------------------


def decode(key: bytes, value: bytes, state: str) -> Flow:
    """A flow from an entry of either direction."""
    netns, zone, family, protocol, saddr, daddr, sport, dport = KEY.unpack(key)
    other = VALUE.unpack(value)
    near = (_address(saddr, family), sport, _address(daddr, family), dport)
    far = (_address(other[3], family), other[5], _address(other[4], family), other[6])
    is_orig = bool(other[8] & FLAG_ORIG)
    orig_zone, reply_zone = (zone, other[7]) if is_orig else (other[7], zone)
    number, direction = _zones(orig_zone, reply_zone)
    return Flow(
        netns=netns,
        zone=number,
        zone_dir=direction,
        family=family,
        protocol=protocol,
        orig=near if is_orig else far,
        reply=far if is_orig else near,
        state=state,
        created_ns=other[1],
        closed_ns=other[2],
    )


def _tuple_dict(protocol: int, data: tuple[str, int, str, int]) -> dict[str, object]:
    src, sport, dst, dport = data
    if protocol in _ICMP:
        return {"src": src, "dst": dst, "id": sport, "type": dport >> 8, "code": dport & 0xFF}
    return {"src": src, "sport": sport, "dst": dst, "dport": dport}


def to_dict(flow: Flow) -> dict[str, object]:
    """The JSON form of a flow."""
    data: dict[str, object] = {"netns": flow.netns, "zone": flow.zone}
    if flow.zone_dir:
        data["zone_dir"] = flow.zone_dir
    data["family"] = _FAMILIES.get(flow.family, str(flow.family))
    data["protocol"] = protocol_name(flow.protocol)
    data["orig"] = _tuple_dict(flow.protocol, flow.orig)
    data["reply"] = _tuple_dict(flow.protocol, flow.reply)
    data["state"] = flow.state
    return data


# --- filtering --------------------------------------------------------------------------------


class Filter(NamedTuple):
    """Which flows are wanted; None means any. Address and port match either end, either way."""

    netns: int | None = None
    address: str | None = None
    port: int | None = None
    protocol: int | None = None

    @classmethod
    def parse(
        cls,
        netns: int | None = None,
        address: str | None = None,
        port: int | None = None,
        protocol: str | None = None,
    ) -> Filter:
        """Checks what a user gave; raises TrackerError."""
        if address is not None:
            try:
                family, packed = _parse_address(address)
            except ValueError:
                raise TrackerError(
                    f"address is {address!r}, needed: an IPv4 or IPv6 address"
                ) from None
            address = _address(packed, family)  # written as flows have it
        if port is not None and not 0 <= port <= 65535:
            raise TrackerError(f"port is {port}, needed: a number from 0 to 65535")
        number = None if protocol is None else protocol_number(protocol)
        return cls(netns=netns, address=address, port=port, protocol=number)

    @property
    def is_empty(self) -> bool:
        """Whether it lets everything through."""
        return self == Filter()

    def matches(self, flow: Flow) -> bool:
        """Whether the flow is wanted."""
        if self.netns is not None and flow.netns != self.netns:
            return False
        if self.protocol is not None and flow.protocol != self.protocol:
            return False
        ends = flow.orig + flow.reply
        if self.address is not None and self.address not in ends[::2]:
            return False
        if self.port is None:
            return True
        return flow.protocol not in _ICMP and self.port in ends[1::2]


# (key, value) pairs of a map
Entries = Iterable[Tuple[bytes, bytes]]


def flows(fd: int, state: str, wanted: Filter | None = None) -> Iterator[Flow]:
    """The flows of a map that `wanted` lets through, in the map's order."""
    return select(bpf.map_entries(fd), state, wanted)


def select(entries: Entries, state: str, wanted: Filter | None = None) -> Iterator[Flow]:
    """The same from a map's entries, however they were read (see `reading`)."""
    wanted = wanted or Filter()
    for key, value in entries:
        if value[FLAGS_OFFSET] & FLAG_ORIG:
            flow = decode(key, value, state)
            if wanted.matches(flow):
                yield flow


def translations(
    maps: Mapping[str, Entries], wanted: Filter, limit: int
) -> tuple[list[dict[str, object]], bool]:
    """Up to `limit` flows of the maps (state to entries), and whether there are more."""
    found = (
        to_dict(flow) for state, entries in maps.items() for flow in select(entries, state, wanted)
    )
    rows = list(islice(found, limit + 1))
    return rows[:limit], len(rows) > limit


# --- look-up ----------------------------------------------------------------------------------


def make_key(
    netns: int, zone: int, protocol: int, src: str, sport: int, dst: str, dport: int
) -> bytes:
    """The key of one direction; raises TrackerError for what cannot be one."""
    try:
        (family, saddr), (other_family, daddr) = _parse_address(src), _parse_address(dst)
    except ValueError as exc:
        raise TrackerError(f"{str(exc)!r} is no address: give IPv4 or IPv6 addresses") from None
    if family != other_family:
        raise TrackerError(f"{src} and {dst} are of two families: a flow has one")
    try:
        return KEY.pack(
            *(netns, zone, family, protocol),
            *(saddr, daddr, sport, dport),
        )
    except struct.error:
        raise TrackerError(
            f"namespace {netns}, zone {zone}, protocol {protocol}, ports {sport} and {dport}: "
            "needed are numbers below 2**32, 65536, 256 and 65536"
        ) from None


def lookup(maps: dict[str, int], key: bytes) -> Flow | None:
    """The flow that has this key as one of its directions, in the first map that knows it."""
    for state, fd in maps.items():
        value = bpf.map_lookup(fd, key, VALUE.size)
        if value is not None:
            return decode(key, value, state)
    return None


# --- the whole map as JSON lines, fast --------------------------------------------------------

# KEY and VALUE, cut for this purpose: what decides the line's frame stays in one piece (netns,
# zone, family, protocol; and the other direction's zone)
_KEY_CUT, _VALUE_CUT = b"8s16s16sHH", b"24x16s16sHH2s2x"
_CUTS = 5

# How many addresses are kept as text; tables have few different ones, an attack has many
_CACHED_ADDRESSES = 65536


# Smaller batches stay in the processor's cache
_BATCH = 4096


class _Addresses(dict):  # type: ignore[type-arg]
    """Address bytes to text, made once each."""

    def __init__(self, family: int) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, raw: bytes) -> bytes:
        if len(self) >= _CACHED_ADDRESSES:
            self.clear()
        text = self[raw] = _address(raw, self._family).encode()
        return text


# Original and reply, each with its src, sport, dst and dport of many flows
_Columns = Sequence[Sequence[Sequence[Any]]]


class _Frame(NamedTuple):
    """What lines share that differ in nothing but addresses and ports."""

    template: bytes
    addresses: _Addresses
    is_icmp: bool


class _Frames(dict):  # type: ignore[type-arg]
    """The bytes of an entry that decide its line's frame, to that frame."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._state = state
        self._addresses = {family: _Addresses(family) for family in _FAMILIES}

    def __missing__(self, cut: bytes) -> _Frame:
        netns, zone, family, protocol, other_zone = struct.unpack("=IHBBH", cut)
        number, direction = _zones(zone, other_zone)
        direction_text = f'"zone_dir": "{direction}", ' if direction else ""
        if protocol in _ICMP:
            ends = '{"src": "%b", "dst": "%b", "id": %d, "type": %d, "code": %d}'
        else:
            ends = '{"src": "%b", "sport": %d, "dst": "%b", "dport": %d}'
        template = (
            f'{{"netns": {netns}, "zone": {number}, {direction_text}'
            f'"family": "{_FAMILIES.get(family, family)}", '
            f'"protocol": "{protocol_name(protocol)}", '
            f'"orig": {ends}, "reply": {ends}, "state": "{self._state}"}}\n'
        )
        addresses = self._addresses.setdefault(family, _Addresses(family))
        frame = self[cut] = _Frame(template.encode(), addresses, protocol in _ICMP)
        return frame


def json_lines(fd: int, state: str) -> Iterator[bytes]:
    """All flows of a map as JSON objects, a line each, many lines at a time.

    The same text as `json.dumps(to_dict(flow))`, in bounded memory. No step of Python code is made
    for a single entry: a batch is taken apart into columns, and formatted as one.
    """
    frames = _Frames(state)
    for keys, values in bpf.map_batches(fd, bpf.map_info(fd), _BATCH):
        is_orig = values[FLAGS_OFFSET :: VALUE.size].translate(_ODD)
        key = _unpack(keys, _KEY_CUT, KEY.size, is_orig)
        value = _unpack(values, _VALUE_CUT, VALUE.size, is_orig)
        cuts = list(map(add, key[::_CUTS], value[4::_CUTS]))
        orig = (key[1::_CUTS], key[3::_CUTS], key[2::_CUTS], key[4::_CUTS])
        reply = (value[::_CUTS], value[2::_CUTS], value[1::_CUTS], value[3::_CUTS])
        for cut, (near, far) in _grouped(cuts, (orig, reply)):
            yield _lines(frames[cut], len(near[0]), near, far)


def _unpack(records: bytes, cut: bytes, size: int, is_orig: bytes) -> tuple[Any, ...]:
    """The cuts of all records of original directions, one after the other."""
    layout = is_orig.replace(b"\0", b"%dx" % size).replace(b"\1", cut)
    return struct.Struct(b"=" + layout).unpack(records)


def _grouped(cuts: list[bytes], directions: _Columns) -> Iterator[tuple[bytes, _Columns]]:
    """The flows of each frame; most often one frame has them all."""
    if len(set(cuts)) == 1:
        yield cuts[0], directions
        return
    places = defaultdict(list)
    for place, cut in enumerate(cuts):
        places[cut].append(place)
    for cut, chosen in places.items():
        yield cut, [[[column[i] for i in chosen] for column in ends] for ends in directions]


def _lines(frame: _Frame, count: int, *directions: Sequence[Sequence[Any]]) -> bytes:
    """The lines of flows with one frame, by one formatting of them all."""
    text = frame.addresses.__getitem__
    columns: list[Iterable[Any]] = []
    for src, sport, dst, dport in directions:
        if frame.is_icmp:
            kinds, codes = [port >> 8 for port in dport], [port & 0xFF for port in dport]
            columns += [map(text, src), map(text, dst), sport, kinds, codes]
        else:
            columns += [map(text, src), sport, map(text, dst), dport]
    return frame.template * count % tuple(chain.from_iterable(zip(*columns)))


# Byte to 1 if odd (FLAG_ORIG is bit 0), else 0
_ODD = bytes(number & FLAG_ORIG for number in range(256))
