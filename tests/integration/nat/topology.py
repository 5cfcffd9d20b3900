# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the namespaces and take them down."""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from pathlib import Path

from . import background, kinds, netns, rules, sites, state
from .commands import run
from .errors import NatError
from .netns import ROOT
from .sites import FAMILIES, INSIDE, LENGTH, OUTSIDE, POOL, SITES, VIRTUAL, Site

TIMEOUT = "3600"
NETFILTER = Path("/proc/sys/net/netfilter")
MODULES = ("nf_conntrack", "nf_conntrack_netlink")
FOR_ALL = {
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}
FOR_ROUTERS = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
# A socket for each protocol that a kernel may lack; what it lacks is skipped, and reported.
OPTIONAL = {"sctp": (socket.SOCK_STREAM, 132)}


class Lines:
    """`ip` commands by namespace: links and addresses first, then routes."""

    def __init__(self) -> None:
        """Empty."""
        self.first: dict[str, list[str]] = defaultdict(list)
        self.routes: dict[str, list[str]] = defaultdict(list)
        self.routes6: dict[str, list[str]] = defaultdict(list)

    def address(self, name: str, device: str, site: Site, which: int, *hosts: int) -> None:
        """Give a device its addresses and put it up."""
        for host in hosts:
            for family in FAMILIES:
                address = f"{site.address(family, which, host)}/{LENGTH[family]}"
                nodad = " nodad" if family == "ipv6" else ""
                self.first[name].append(f"address add {address} dev {device}{nodad}")
        self.first[name].append(f"link set {device} up")

    def route(self, name: str, site: Site, which: int, via: tuple[int, int], device: str) -> None:
        """A way to one of the site's networks."""
        for family in FAMILIES:
            self.routes[name].append(
                f"route replace {site.network(family, which)}"
                f" via {site.address(family, *via)} dev {device}"
            )


def up() -> dict[str, object]:
    """Build everything; what was there from an earlier run is removed first."""
    down()
    _load_modules()
    routers = [site.router for site in SITES if site.router != ROOT]
    names = [*sites.HOSTS, *routers]
    run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in names))
    for name in names:
        with netns.inside(name):
            _set({**FOR_ALL, **(FOR_ROUTERS if name in routers else {})})
    run(["ip", "-batch", "-"], "\n".join(_links()) + "\n")
    lines = _lines()
    for part, family in ((lines.first, []), (lines.routes, []), (lines.routes6, ["-6"])):
        for name, commands in part.items():
            with netns.inside(name):
                run(["ip", *family, "-batch", "-"], "\n".join(commands) + "\n")
    _root_forwarding()
    skipped = {**_skipped_protocols(), **_apply_rules()}
    before = {}
    for name in [ROOT, *routers]:
        with netns.inside(name):
            values = _long_timeouts()
        if name == ROOT:
            before = values
    state.save("topology", {"skipped": skipped, "root_sysctls": before})
    return {"namespaces": len(names), "skipped": skipped}


def down() -> None:
    """Remove everything; nothing to remove is fine."""
    background.stop_all()
    topology = state.load("topology", {})
    for name, value in topology.get("root_sysctls", {}).items():
        netns.write_sysctl(name, value)
    names = netns.ours()
    netns.forget()
    if topology or names:
        _clean_root()
    if names:
        run(["ip", "-batch", "-"], "".join(f"netns delete {name}\n" for name in names))
    state.remove()


def _clean_root() -> None:
    for device in ("c0", "s0"):
        run(["ip", "link", "delete", sites.ROOT_SITE.interface(device)], ok=(0, 1))
    for family in FAMILIES:
        table = f"table {rules.NFT_FAMILY[family]} {rules.TABLE}"
        run(["nft", "-f", "-"], f"{table} {{}}\ndelete {table}\n")
        for option, which in (("-s", INSIDE), ("-d", VIRTUAL)):
            network = sites.ROOT_SITE.network(family, which)
            run(["conntrack", "-D", "-f", family, option, network], ok=(0, 1))


def _load_modules() -> None:
    """Their sysctls have to be there; what is built in, or loads by itself, may fail here."""
    for module in MODULES:
        with contextlib.suppress(NatError):
            run(["modprobe", module])


def _set(values: dict[str, str]) -> None:
    for name, value in values.items():
        netns.write_sysctl(name, value)


def _links() -> list[str]:
    lines = []
    for site in SITES:
        ends = [(f"c{n}", name, f"r{site.number}") for n, name in enumerate(site.clients)]
        ends += [(f"s{n}", name, f"r{site.number}") for n, name in enumerate(site.servers)]
        if site.lan:
            ends.append(("l0", site.servers[0], f"h{site.number}"))
        place = f" netns {site.router}" if site.router else ""
        lines += [
            f"link add {site.interface(own)}{place} type veth peer name {peer} netns {name}"
            for own, name, peer in ends
        ]
    return lines


def _lines() -> Lines:
    lines = Lines()
    for name in [*sites.HOSTS, *(site.router for site in SITES if site.router)]:
        lines.first[name].append("link set lo up")
    for site in SITES:
        _client_lines(lines, site)
        _server_lines(lines, site)
        _router_lines(lines, site)
    return lines


def _client_lines(lines: Lines, site: Site) -> None:
    device, router = f"r{site.number}", (INSIDE, sites.ROUTER_HOST)
    for name in site.clients:
        lines.address(name, device, site, INSIDE, *sites.CLIENT_HOSTS)
        lines.route(name, site, OUTSIDE, router, device)


def _server_lines(lines: Lines, site: Site) -> None:
    device, router = f"r{site.number}", (OUTSIDE, sites.ROUTER_HOST)
    for name in site.servers:
        lines.address(name, device, site, OUTSIDE, sites.SERVER_HOST)
        lines.route(name, site, POOL, router, device)
        if not site.lan:
            lines.route(name, site, INSIDE, router, device)
    if site.lan:
        lines.address(site.servers[0], f"h{site.number}", site, INSIDE, sites.LAN_SERVER_HOST)


def _router_lines(lines: Lines, site: Site) -> None:
    name, first = site.router, lines.first[site.router]
    inner = [site.interface(f"c{n}") for n in range(len(site.clients))]
    outer = [site.interface(f"s{n}") for n in range(len(site.servers))]
    if site.lan:
        first.append("link add lan type bridge")
        first += [f"link set {device} master lan up" for device in (*inner, "l0")]
        inner = ["lan"]
    for device in inner:
        lines.address(name, device, site, INSIDE, sites.ROUTER_HOST)
    for device in outer:
        lines.address(name, device, site, OUTSIDE, sites.ROUTER_HOST)
    if len(inner) > 1:
        _twin_lines(lines, site, inner, outer)
    if name == ROOT:
        lines.route(ROOT, site, VIRTUAL, (OUTSIDE, sites.SERVER_HOST), outer[0])


def _twin_lines(lines: Lines, site: Site, inner: list[str], outer: list[str]) -> None:
    """Two clients with one address: the way is chosen by interface, or by mark."""
    for family, by_router in (("ipv4", lines.routes), ("ipv6", lines.routes6)):
        routes = by_router[site.router]
        for number, device in enumerate(inner):
            to_client, to_server = 20 + number, 10 + number
            routes.append(
                f"route add {site.network(family, INSIDE)} dev {device} table {to_client}"
            )
            if len(outer) == 1:
                routes.append(f"rule add fwmark {number + 1} table {to_client}")
                continue
            network = site.network(family, OUTSIDE)
            routes += [
                f"route add {network} dev {outer[number]} table {to_server}",
                f"rule add iif {device} table {to_server}",
                f"rule add iif {outer[number]} table {to_client}",
            ]


def _root_forwarding() -> None:
    """Forward between our own two interfaces only."""
    for device in ("c0", "s0"):
        name = sites.ROOT_SITE.interface(device)
        netns.write_sysctl(f"net/ipv4/conf/{name}/forwarding", "1")
        netns.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")


def _apply_rules() -> dict[str, str]:
    """Rules of all routers; the sites that this kernel cannot do, with the reason."""
    skipped = {}
    for site in SITES:
        with netns.inside(site.router):
            for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
                if text := rules.nft(site, family):
                    run(["nft", "-f", "-"], text)
                if not (text := rules.iptables(site, family)):
                    continue
                if site is not sites.LEGACY:
                    run([f"{program}-nft-restore"], text)
                    continue
                try:
                    run([f"{program}-legacy-restore"], text)
                except NatError as error:
                    skipped[site.name] = str(error)
    return skipped


def _skipped_protocols() -> dict[str, str]:
    skipped = {}
    for protocol, (kind, number) in OPTIONAL.items():
        try:
            socket.socket(socket.AF_INET, kind, number).close()
        except OSError as error:
            skipped[protocol] = f"{protocol}: {error.strerror}"
    return skipped


def _long_timeouts() -> dict[str, str]:
    """Let nothing expire while it is compared; the values before."""
    before = {}
    for path in sorted(NETFILTER.glob("nf_conntrack_*timeout*")):
        if int(path.read_text()) < int(TIMEOUT):
            name = f"net/netfilter/{path.name}"
            before[name] = netns.write_sysctl(name, TIMEOUT) or TIMEOUT
    return before


def usable() -> tuple[tuple[kinds.Kind, ...], dict[str, str]]:
    """The kinds that this kernel can do, and what was skipped and why."""
    topology = state.load("topology")
    if topology is None:
        raise NatError("nothing is built: run 'up' first")
    skipped: dict[str, str] = topology["skipped"]
    return tuple(kind for kind in kinds.KINDS if kind.site.name not in skipped), skipped
