# SPDX-License-Identifier: GPL-3.0-or-later
"""The namespaces and addresses: one site is one router with its clients and servers."""

from __future__ import annotations

from dataclasses import dataclass

from .netns import PREFIX, ROOT

CLIENT = PREFIX + "client"
SERVER = PREFIX + "server"
# Two clients and two servers with the very same addresses, kept apart by zones.
CLIENT_A, CLIENT_B = PREFIX + "client-a", PREFIX + "client-b"
SERVER_A, SERVER_B = PREFIX + "server-a", PREFIX + "server-b"
HOSTS = (CLIENT, SERVER, CLIENT_A, CLIENT_B, SERVER_A, SERVER_B)

FAMILIES = ("ipv4", "ipv6")
LENGTH = {"ipv4": 24, "ipv6": 64}

# Networks of a site, by what they are for.
INSIDE, OUTSIDE, POOL, VIRTUAL = 77, 78, 99, 79


@dataclass(frozen=True)
class Site:
    """One router; its interfaces are c0, c1 (to clients) and s0, s1 (to servers)."""

    name: str
    number: int
    clients: tuple[str, ...] = (CLIENT,)
    servers: tuple[str, ...] = (SERVER,)
    lan: bool = False  # a server of the client's own network, behind a bridge

    @property
    def router(self) -> str:
        """The router's namespace."""
        return ROOT if self.name == "root" else PREFIX + self.name

    def interface(self, name: str) -> str:
        """The router's interface; in the root namespace it has the prefix."""
        return PREFIX + name if self.router == ROOT else name

    @property
    def inner(self) -> str:
        """The interface that has the router's address in the client's network."""
        return "lan" if self.lan else self.interface("c0")

    def network(self, family: str, which: int) -> str:
        """A network with its length."""
        return f"{self.address(family, which, 0)}/{LENGTH[family]}"

    def address(self, family: str, which: int, host: int) -> str:
        """A host's address in one of the site's networks."""
        if family == "ipv4":
            return f"10.{which}.{self.number}.{host}"
        return f"fd00:{which}:{self.number}::{host or ''}"


NFT_MASQUERADE = Site("nft-masq", 1)
IPT_MASQUERADE = Site("ipt-masq", 2)
NFT_SNAT = Site("nft-snat", 3)
NFT_DNAT = Site("nft-dnat", 4)
IPT_DNAT = Site("ipt-dnat", 5)
LEGACY = Site("ipt-legacy", 6)
NFT_HAIRPIN = Site("nft-hairpin", 7, lan=True)
IPT_HAIRPIN = Site("ipt-hairpin", 8, lan=True)
ZONES = Site("zones", 9, (CLIENT_A, CLIENT_B), (SERVER_A, SERVER_B))
ORIGINAL_ZONES = Site("zones-orig", 10, (CLIENT_A, CLIENT_B))
PLAIN = Site("plain", 11)
ROOT_SITE = Site("root", 12)
SITES = (
    NFT_MASQUERADE,
    IPT_MASQUERADE,
    NFT_SNAT,
    NFT_DNAT,
    IPT_DNAT,
    LEGACY,
    NFT_HAIRPIN,
    IPT_HAIRPIN,
    ZONES,
    ORIGINAL_ZONES,
    PLAIN,
    ROOT_SITE,
)
# Hosts of a client network: the router, two clients, the server that is inside too.
ROUTER_HOST, CLIENT_HOSTS, LAN_SERVER_HOST = 1, (2, 3), 9
SERVER_HOST = 2
