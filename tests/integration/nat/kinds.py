# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of translation: who calls what, and who answers where."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import sites
from .netns import ROOT
from .sites import FAMILIES, INSIDE, OUTSIDE, VIRTUAL, Site

WITH_PORTS = ("tcp", "udp")
STREAMS = ("tcp", "sctp")
# Protocols without ports: one flow an address pair. 253 is for experiments (RFC 3692).
WITHOUT_PORTS = ("gre", "253")


@dataclass(frozen=True)
class Caller:
    """Where a flow starts."""

    netns: str
    host: int
    server: str
    network: int = INSIDE
    zone: int = 0
    zone_dir: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of translation, chosen in the router by the destination port."""

    name: str
    site: Site
    port: int
    callers: tuple[Caller, ...]
    dial: tuple[int, int] = (OUTSIDE, sites.SERVER_HOST)
    answer: tuple[int, int] = (OUTSIDE, sites.SERVER_HOST)
    answer_port: int = 0
    answer_in_router: bool = False
    protocols: tuple[str, ...] = WITH_PORTS
    families: tuple[str, ...] = FAMILIES
    translated: bool = True
    # Kept for the run that deletes entries by hand between two uses of a tuple.
    deleted: bool = field(default=False)

    def target(self, family: str) -> str:
        """The address that is called."""
        return self.site.address(family, *self.dial)

    def listener(self, family: str) -> str:
        """The address that answers."""
        return self.site.address(family, *self.answer)

    @property
    def listener_port(self) -> int:
        """The port that answers."""
        return self.answer_port or self.port

    def listener_netns(self, caller: Caller) -> str:
        """The namespace that answers."""
        return self.site.router if self.answer_in_router else caller.server


def _pair(site: Site) -> tuple[Caller, ...]:
    """Two addresses that use the same ports, so that masquerade has to change one."""
    return tuple(Caller(site.clients[0], host, site.servers[0]) for host in sites.CLIENT_HOSTS)


def _twins(site: Site, zones: tuple[int, int], zone_dir: str = "") -> tuple[Caller, ...]:
    """Two clients with the same address and ports in two zones."""
    servers = site.servers if len(site.servers) == 2 else site.servers * 2
    return tuple(
        Caller(client, 2, server, zone=zone, zone_dir=zone_dir)
        for client, server, zone in zip(site.clients, servers, zones, strict=True)
    )


ROUTER = (INSIDE, sites.ROUTER_HOST)
OUTER = (OUTSIDE, sites.ROUTER_HOST)
LAN_SERVER = (INSIDE, sites.LAN_SERVER_HOST)
DNAT_HOST = 77  # called in the virtual network of the root namespace
POOL_HOST = 5  # the fixed address of SNAT, in the POOL network of the site

# Ports, also used by the rules.
PLAIN_PORT, RANDOM, DELETED = 5001, 5002, 5003
FIXED, UPPER, RANGE = 5011, 5012, 5013
FORWARD, FORWARD_OTHER, REDIRECT = 5021, 5022, 5023
HAIRPIN, ZONED, LOCAL_DNAT = 5031, 5041, 5051
SHIFT = 1000  # what "another port" adds

WITH_ICMP = (*WITH_PORTS, "icmp")
EVERYTHING = (*WITH_ICMP, "sctp", *WITHOUT_PORTS)


def _dnat(prefix: str, site: Site) -> tuple[Kind, ...]:
    callers = _pair(site)
    return (
        Kind(f"{prefix}-dnat", site, FORWARD, callers, dial=ROUTER),
        Kind(
            f"{prefix}-dnat-port",
            site,
            FORWARD_OTHER,
            callers,
            dial=ROUTER,
            answer_port=FORWARD_OTHER + SHIFT,
        ),
        Kind(
            f"{prefix}-redirect",
            site,
            REDIRECT,
            callers,
            answer=ROUTER,
            answer_port=REDIRECT + SHIFT,
            answer_in_router=True,
        ),
    )


def _hairpin(name: str, site: Site) -> Kind:
    port = HAIRPIN
    return Kind(
        name, site, port, _pair(site), dial=OUTER, answer=LAN_SERVER, answer_port=port + SHIFT
    )


def _kinds() -> tuple[Kind, ...]:
    nft, ipt, snat = sites.NFT_MASQUERADE, sites.IPT_MASQUERADE, sites.NFT_SNAT
    root_caller = Caller(ROOT, sites.ROUTER_HOST, sites.SERVER, network=OUTSIDE)
    return (
        Kind("nft-masquerade", nft, PLAIN_PORT, _pair(nft), protocols=EVERYTHING),
        Kind("nft-masquerade-random", nft, RANDOM, _pair(nft)),
        Kind("nft-masquerade-deleted", nft, DELETED, _pair(nft), deleted=True),
        Kind("iptables-masquerade", ipt, PLAIN_PORT, _pair(ipt), protocols=WITH_ICMP),
        Kind("iptables-snat", ipt, FIXED, _pair(ipt)),
        Kind("iptables-masquerade-deleted", ipt, DELETED, _pair(ipt), deleted=True),
        Kind("nft-snat", snat, FIXED, _pair(snat), protocols=WITH_ICMP),
        Kind("nft-snat-upper64", snat, UPPER, _pair(snat), families=("ipv6",)),
        Kind("nft-snat-range", snat, RANGE, _pair(snat)),
        *_dnat("nft", sites.NFT_DNAT),
        *_dnat("iptables", sites.IPT_DNAT),
        *_dnat("legacy", sites.LEGACY),
        Kind("legacy-masquerade", sites.LEGACY, PLAIN_PORT, _pair(sites.LEGACY)),
        _hairpin("nft-hairpin", sites.NFT_HAIRPIN),
        _hairpin("iptables-hairpin", sites.IPT_HAIRPIN),
        Kind("zone-both", sites.ZONES, ZONED, _twins(sites.ZONES, (11, 12)), protocols=WITH_ICMP),
        Kind(
            "zone-original",
            sites.ORIGINAL_ZONES,
            ZONED,
            _twins(sites.ORIGINAL_ZONES, (21, 22), "orig"),
            protocols=WITH_ICMP,
        ),
        Kind(
            "root-masquerade",
            sites.ROOT_SITE,
            PLAIN_PORT,
            _pair(sites.ROOT_SITE),
            families=("ipv4",),
            protocols=WITH_ICMP,
        ),
        Kind(
            "root-output-dnat",
            sites.ROOT_SITE,
            LOCAL_DNAT,
            (root_caller,),
            dial=(VIRTUAL, DNAT_HOST),
            answer_port=LOCAL_DNAT + SHIFT,
        ),
        Kind("plain", sites.PLAIN, PLAIN_PORT, _pair(sites.PLAIN), translated=False),
    )


KINDS = _kinds()
BY_NAME = {kind.name: kind for kind in KINDS}
