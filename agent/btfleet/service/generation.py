# SPDX-License-Identifier: GPL-3.0-or-later
"""A generation: everything that one refresh verified, as the store keeps it. Pure."""

from __future__ import annotations

from typing import Callable, Mapping, NamedTuple

from btfleet.service.chain import CONFIG, DIRECTOR, Chain, Opened, open_chain, reopen
from btfleet.service.crosscheck import Target, check_file, check_targets
from btfleet.service.errors import Refused


class Generation(NamedTuple):
    """Chains and what they say, by repository; targets by path; files by SHA-256 (hex)."""

    chains: Mapping[str, Chain]
    opened: Mapping[str, Opened]
    targets: list[Target]
    files: Mapping[str, bytes]


class Stored(NamedTuple):
    """What the store holds: chains by repository, and files by SHA-256."""

    chains: Mapping[str, Chain]
    files: Mapping[str, bytes]


NOTHING = Stored({}, {})


def build(
    chains: Mapping[str, Chain], org: int, fetch: Callable[[list[Target]], Mapping[str, bytes]]
) -> Generation:
    """A generation from chains that the Updater verified.

    `fetch` is given the targets, once they are cross-checked, and returns their files by SHA-256.
    Raises Refused.
    """
    return _build(chains, {name: open_chain(name, chains[name]) for name in chains}, org, fetch)


def verify(stored: Stored) -> dict[str, Opened]:
    """What stored chains say, verified anew; raises Refused for a store that is damaged."""
    if set(stored.chains) != {DIRECTOR, CONFIG}:
        raise Refused("malformed", "the store lacks a repository")
    return {name: reopen(name, chain) for name, chain in stored.chains.items()}


def restore(stored: Stored, opened: Mapping[str, Opened], org: int) -> Generation:
    """The generation in the store; raises Refused if it is not to be served (any more)."""
    return _build(stored.chains, opened, org, lambda _targets: stored.files)


def _build(
    chains: Mapping[str, Chain],
    opened: Mapping[str, Opened],
    org: int,
    fetch: Callable[[list[Target]], Mapping[str, bytes]],
) -> Generation:
    targets = check_targets(opened[DIRECTOR].targets, opened[CONFIG].targets, org)
    files = fetch(targets)
    kept = {}
    for target in targets:
        if target.sha256 not in files:
            raise Refused("malformed", f"{target.path}: its file is missing in the store")
        check_file(target, files[target.sha256])
        kept[target.sha256] = files[target.sha256]
    return Generation(chains, opened, targets, kept)
