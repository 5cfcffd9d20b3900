# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of hosts and groups in an inventory, from the rows of fleet_view. Pure."""

from __future__ import annotations

import re
from typing import Any, Collection, Iterable, Mapping

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet.fleet_rows import (
    STALE,
    UNHEARD,
)

GROUPINGS = ("state", "version", "label", "group")

# What neither a pattern of hosts nor a path makes more of than a name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}")
# Groups that every inventory has, and the hosts that Ansible takes for the control node itself
_RESERVED = frozenset(["all", "ungrouped", "localhost", "127.0.0.1", "::1"])


def groups_of(row: Mapping[str, Any], groupings: Collection[str]) -> Iterable[str]:
    """The groups of a host, not yet made safe.

    What a host says of itself only ever stands behind a word of ours, so it cannot put itself into
    a group of another kind, or of another inventory.
    """
    if "state" in groupings:
        yield row["state"]
    if "version" in groupings and row["version"]:
        yield f"version_{row['version']}"
    if "label" in groupings:
        for name, value in row["labels"].items():
            yield f"label_{name}_{value}" if value else f"label_{name}"
    if "group" in groupings:
        for name in row["groups"]:
            yield f"group_{name}"


def parent_of(group: str) -> str | None:
    """The group that all hosts of a group are in as well."""
    return STALE if group == UNHEARD else None


def is_name(name: object) -> bool:
    """Whether a host can have this name in an inventory."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and name not in _RESERVED


def names(wanted: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """Hosts' names in the inventory, by their names in the fleet, and what there is to warn of.

    `wanted` has what the operator's expression made of each. A name that cannot be, or that more
    than one host would have, is not given to anybody: such hosts keep their names in the fleet.
    """
    found: dict[str, str] = {}
    warnings: list[str] = []
    for host, name in wanted.items():
        if not is_name(host):
            warnings.append(
                f"host {host!a} is left out: in an inventory it needs a name of letters, digits, "
                "_ . : and -, and not one that Ansible gives another meaning"
            )
            continue
        if name != host and not is_name(name):
            warnings.append(
                f"host {host} keeps this name: {_shown(name)}, which `hostname` makes of it, is no "
                "name for a host"
            )
            name = host
        found[host] = str(name)
    holders: dict[str, list[str]] = {}
    for host, name in found.items():
        holders.setdefault(name, []).append(host)
    for name, hosts in holders.items():
        # A host's own name is nobody else's, and nobody's else is its own
        takers = [host for host in hosts if host != name]
        if takers and (len(hosts) > 1 or name in found):
            for host in takers:
                found[host] = host
                warnings.append(
                    f"host {host} keeps this name: {name}, which `hostname` makes of it, is "
                    "another host's as well"
                )
    return found, warnings


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 100 else f"{text[:100]}..."
