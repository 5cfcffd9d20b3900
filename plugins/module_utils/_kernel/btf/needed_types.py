# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The types that the object reads (bpf/kernel_types.h), and where their members lie, as numbers.

The numbers come from the kernel's headers (`header_types`), or from BTF that libbpf cannot read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import writer
from .reader import STRUCT, UNION, RawBtf


@dataclass(frozen=True)
class Shape:
    """A struct or union. `c` is what C calls it, `members` are name, type and, where a kernel may
    be built without it, the option that it depends on.
    """

    name: str
    c: str
    members: tuple[tuple[str, str, str], ...]
    is_union: bool = False


def _struct(name: str, *members: tuple[str, str, str]) -> Shape:
    return Shape(name, f"struct {name}", members)


def _union(name: str, *members: tuple[str, str, str]) -> Shape:
    return Shape(name, f"union {name}", members, is_union=True)


_BTF = "/sys/kernel/btf"
_DST = "((struct nf_conntrack_tuple *)0)->dst"
# What bpf/kernel_types.h has. A type is the key of another, `[n]` and `*` behind it as in C.
SHAPES = {
    "addr": _union("nf_inet_addr", ("all", "u32[4]", "")),
    "port": _union("nf_conntrack_man_proto", ("all", "u16", "")),
    "man": _struct("nf_conntrack_man", ("u3", "addr", ""), ("u", "port", ""), ("l3num", "u16", "")),
    "dst_port": Shape("", f"typeof({_DST}.u)", (("all", "u16", ""),), is_union=True),
    "dst": Shape(
        "",
        f"typeof({_DST})",
        (("u3", "addr", ""), ("u", "dst_port", ""), ("protonum", "u8", "")),
    ),
    "tuple": _struct("nf_conntrack_tuple", ("src", "man", ""), ("dst", "dst", "")),
    "hash": _struct("nf_conntrack_tuple_hash", ("tuple", "tuple", "")),
    "zone": _struct("nf_conntrack_zone", ("id", "u16", ""), ("dir", "u8", "")),
    "ns_common": _struct("ns_common", ("inum", "u32", "")),
    "net": _struct("net", ("ns", "ns_common", "")),
    "net_pointer": Shape("", "possible_net_t", (("net", "net*", "CONFIG_NET_NS"),)),
    "nf_conn": _struct(
        "nf_conn",
        ("zone", "zone", "CONFIG_NF_CONNTRACK_ZONES"),
        ("tuplehash", "hash[2]", ""),
        ("status", "long", ""),
        ("ct_net", "net_pointer", ""),
    ),
    "sk_buff": _struct("sk_buff", ("_nfct", "long", "")),
}


def to_btf(numbers: dict[str, int]) -> bytes:
    """The shapes that there are numbers of as BTF, in the byte order of this machine.

    `size_KEY` and `at_KEY_MEMBER` are in bytes, -1 for a member that the kernel is built without.
    """
    shapes = {
        key: writer.Composite(
            shape.name,
            numbers[f"size_{key}"],
            tuple(
                (name, kind, numbers[f"at_{key}_{name}"])
                for name, kind, _option in shape.members
                if numbers[f"at_{key}_{name}"] >= 0
            ),
            shape.is_union,
        )
        for key, shape in SHAPES.items()
        if f"size_{key}" in numbers
    }
    return writer.write(shapes)


def numbers_of(btf: RawBtf) -> dict[str, int]:
    """What `to_btf` takes, of the shapes and members that a kernel has by their names."""
    places: dict[str, int] = {}
    for key, shape in SHAPES.items():
        found = btf.find(shape.name, UNION if shape.is_union else STRUCT) if shape.name else None
        if found is not None:
            places[key] = found
    numbers = {}
    waiting = list(places)
    while waiting:
        key = waiting.pop()
        numbers[f"size_{key}"] = btf.size(places[key])
        members = btf.members(places[key])
        for name, kind, _option in SHAPES[key].members:
            member_type, bits = members.get(name, (0, -8))
            numbers[f"at_{key}_{name}"] = bits // 8
            # One without a name is met as a member's type
            below = kind.partition("[")[0]
            if below in SHAPES and below not in places and name in members:
                places[below] = btf.element(member_type)
                waiting.append(below)
    return numbers


def rewrite(kernel: bytes, module: bytes = b"") -> bytes:
    """BTF of a kernel and a module, without what the object does not need; raises ValueError."""
    try:
        return to_btf(numbers_of(RawBtf(kernel, module)))
    except (LookupError, struct.error):
        raise ValueError("its types do not fit together") from None


def of_kernel(module: str) -> bytes:
    """The running kernel's and a module's BTF, as much of it as the object needs, in a form that
    every libbpf reads. Raises OSError and ValueError where there is none, or another than is known.
    """
    with open(f"{_BTF}/vmlinux", "rb") as stream:
        kernel = stream.read()
    try:
        with open(f"{_BTF}/{module}", "rb") as stream:
            own = stream.read()
    except FileNotFoundError:
        own = b""
    return rewrite(kernel, own)
