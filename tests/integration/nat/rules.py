# SPDX-License-Identifier: GPL-3.0-or-later
"""The NAT rules of every router, as text for nft and iptables-restore."""

from __future__ import annotations

from . import kinds, sites
from .kinds import SHIFT
from .sites import INSIDE, OUTSIDE, POOL, VIRTUAL, Site

TABLE = "btnat"
NFT_FAMILY = {"ipv4": "ip", "ipv6": "ip6"}
POST = "type nat hook postrouting priority 100;"
PRE = "type nat hook prerouting priority -100;"
OUTPUT = "type nat hook output priority -100;"
PORTS = "meta l4proto { tcp, udp } th dport"


def bracketed(address: str) -> str:
    """An address as it is written before a port."""
    return f"[{address}]" if ":" in address else address


def nft(site: Site, family: str) -> str:
    """The ruleset of a router that uses nft; empty for the others."""
    chains = _NFT[site.name](site, family) if site.name in _NFT else {}
    if not chains:
        return ""
    body = ""
    for number, (hook, rules) in enumerate(chains.items()):
        body += f"chain c{number} {{ {hook}\n" + "\n".join(rules) + "\n}\n"
    return f"table {NFT_FAMILY[family]} {TABLE} {{\n{body}}}\n"


def _masquerade(site: Site, family: str) -> dict[str, list[str]]:
    del site, family
    return {
        POST: [
            f"oifname s0 {PORTS} {{ {kinds.RANDOM}, {kinds.DELETED} }} masquerade fully-random",
            "oifname s0 masquerade",
        ]
    }


def _snat(site: Site, family: str) -> dict[str, list[str]]:
    pool = site.address(family, POOL, kinds.POOL_HOST)
    rules = [f"oifname s0 {PORTS} {kinds.RANGE} snat to {bracketed(pool)}:20000-59999 random"]
    if family == "ipv6":
        rules += [
            # The same lower 64 bits: only the network is another one.
            f"oifname s0 {PORTS} {kinds.UPPER} ip6 saddr {site.address(family, INSIDE, host)}"
            f" snat to {site.address(family, POOL, host)}"
            for host in sites.CLIENT_HOSTS
        ]
    return {POST: [*rules, f"oifname s0 snat to {pool}"]}


def _dnat(site: Site, family: str) -> dict[str, list[str]]:
    server = bracketed(site.address(family, OUTSIDE, sites.SERVER_HOST))
    other = kinds.FORWARD_OTHER
    return {
        PRE: [
            f"iifname c0 {PORTS} {kinds.FORWARD} dnat to {server.strip('[]')}",
            f"iifname c0 {PORTS} {other} dnat to {server}:{other + SHIFT}",
            f"iifname c0 {PORTS} {kinds.REDIRECT} redirect to :{kinds.REDIRECT + SHIFT}",
        ]
    }


def _hairpin(site: Site, family: str) -> dict[str, list[str]]:
    server = site.address(family, INSIDE, sites.LAN_SERVER_HOST)
    outer = site.address(family, OUTSIDE, sites.ROUTER_HOST)
    ip, lan, port = NFT_FAMILY[family], site.network(family, INSIDE), kinds.HAIRPIN
    return {
        PRE: [f"{ip} daddr {outer} {PORTS} {port} dnat to {bracketed(server)}:{port + SHIFT}"],
        POST: [f"{ip} saddr {lan} {ip} daddr {server} masquerade"],
    }


def _zones(site: Site, family: str) -> dict[str, list[str]]:
    del site, family
    return {
        "type filter hook prerouting priority -300;": [
            "iifname { c0, s0 } ct zone set 11",
            "iifname { c1, s1 } ct zone set 12",
        ],
        POST: ["oifname { s0, s1 } masquerade"],
    }


def _original_zones(site: Site, family: str) -> dict[str, list[str]]:
    del site, family
    return {
        "type filter hook prerouting priority -300;": [
            "iifname c0 ct original zone set 21",
            "iifname c1 ct original zone set 22",
        ],
        # The mark leads the reply back to the client it belongs to.
        "type filter hook prerouting priority -150;": [
            "iifname c0 ct mark set 1",
            "iifname c1 ct mark set 2",
            "iifname s0 meta mark set ct mark",
        ],
        POST: ["oifname s0 masquerade"],
    }


def _plain(site: Site, family: str) -> dict[str, list[str]]:
    del site, family
    return {"type filter hook forward priority 0;": ["ct state new,established accept"]}


def _root(site: Site, family: str) -> dict[str, list[str]]:
    ip, out, port = NFT_FAMILY[family], site.interface("s0"), kinds.LOCAL_DNAT
    called = site.address(family, VIRTUAL, kinds.DNAT_HOST)
    server = bracketed(site.address(family, OUTSIDE, sites.SERVER_HOST))
    inside = site.network(family, INSIDE)
    return {
        OUTPUT: [f"{ip} daddr {called} {PORTS} {port} dnat to {server}:{port + SHIFT}"],
        POST: [f'oifname "{out}" {ip} saddr {inside} masquerade'],
    }


_NFT = {
    sites.NFT_MASQUERADE.name: _masquerade,
    sites.NFT_SNAT.name: _snat,
    sites.NFT_DNAT.name: _dnat,
    sites.NFT_HAIRPIN.name: _hairpin,
    sites.ZONES.name: _zones,
    sites.ORIGINAL_ZONES.name: _original_zones,
    sites.PLAIN.name: _plain,
    sites.ROOT_SITE.name: _root,
}


def iptables(site: Site, family: str) -> str:
    """Text for iptables-restore; empty for a router that does not use it."""
    rules = _IPTABLES[site.name](site, family) if site.name in _IPTABLES else []
    return "*nat\n" + "\n".join(rules) + "\nCOMMIT\n" if rules else ""


def _each(rule: str) -> list[str]:
    return [rule.replace("PROTO", protocol) for protocol in ("tcp", "udp")]


def _ipt_masquerade(site: Site, family: str) -> list[str]:
    pool = site.address(family, POOL, kinds.POOL_HOST)
    out = "-A POSTROUTING -o s0 -p PROTO --dport"
    return [
        *_each(f"{out} {kinds.FIXED} -j SNAT --to-source {pool}"),
        *_each(f"{out} {kinds.DELETED} -j MASQUERADE --random-fully"),
        "-A POSTROUTING -o s0 -j MASQUERADE",
    ]


def _ipt_dnat(site: Site, family: str) -> list[str]:
    server = site.address(family, OUTSIDE, sites.SERVER_HOST)
    other, into = kinds.FORWARD_OTHER, "-A PREROUTING -i c0 -p PROTO --dport"
    return [
        *_each(f"{into} {kinds.FORWARD} -j DNAT --to-destination {server}"),
        *_each(f"{into} {other} -j DNAT --to-destination {bracketed(server)}:{other + SHIFT}"),
        *_each(f"{into} {kinds.REDIRECT} -j REDIRECT --to-ports {kinds.REDIRECT + SHIFT}"),
    ]


def _ipt_hairpin(site: Site, family: str) -> list[str]:
    server = site.address(family, INSIDE, sites.LAN_SERVER_HOST)
    outer, port = site.address(family, OUTSIDE, sites.ROUTER_HOST), kinds.HAIRPIN
    inner = site.address(family, INSIDE, sites.ROUTER_HOST)
    lan = site.network(family, INSIDE)
    to = f"{bracketed(server)}:{port + SHIFT}"
    return [
        *_each(f"-A PREROUTING -d {outer} -p PROTO --dport {port} -j DNAT --to-destination {to}"),
        f"-A POSTROUTING -s {lan} -d {server} -j SNAT --to-source {inner}",
    ]


def _legacy(site: Site, family: str) -> list[str]:
    return [*_ipt_dnat(site, family), "-A POSTROUTING -o s0 -j MASQUERADE"]


_IPTABLES = {
    sites.IPT_MASQUERADE.name: _ipt_masquerade,
    sites.IPT_DNAT.name: _ipt_dnat,
    sites.IPT_HAIRPIN.name: _ipt_hairpin,
    sites.LEGACY.name: _legacy,
}
