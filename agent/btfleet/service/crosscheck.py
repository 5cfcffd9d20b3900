# SPDX-License-Identifier: GPL-3.0-or-later
"""Each repository against the other, and each config against what it may be. Pure.

The director says who gets a config, the config repository which configs exist: whoever holds the
keys of one of them alone can bring nothing to a host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile, Targets

from btfleet._config import catalogue, custom, paths
from btfleet._config.errors import ConfigError
from btfleet.service.errors import Refused

# Contents that were found good, by product and SHA-256: a refresh need not look at them again
_good: set[tuple[str, str]] = set()
_MOST_GOOD = 1 << 16


class Target(NamedTuple):
    """A target of the director that the config repository confirms."""

    path: str
    product: str
    file: TargetFile
    custom: custom.Custom

    @property
    def sha256(self) -> str:
        """The file's SHA-256 in hex."""
        return self.file.hashes["sha256"]


def check_targets(director: Targets, config: Targets, org: int) -> list[Target]:
    """The director's targets in order of their paths; raises Refused for the first wrong one."""
    for repository, targets in (("director", director), ("config", config)):
        if targets.delegations is not None:
            raise Refused(
                "delegation",
                f"{repository}'s targets.json delegates, needed: no delegations: publish anew",
            )
    return [
        _check(path, file, config.targets.get(path), org)
        for path, file in sorted(director.targets.items())
    ]


def check_file(target: Target, raw: bytes) -> None:
    """Length, every hash and the content of a target's file; raises Refused."""
    try:
        target.file.verify_length_and_hashes(raw)
    except LengthOrHashMismatchError as exc:
        raise Refused(
            "wrong_hash", f"{target.path}: {exc}: the file is not the signed one, publish anew"
        ) from None
    content = (target.product, target.sha256)
    if content in _good:
        return
    try:
        catalogue.check_content(target.product, raw)
    except ConfigError as exc:
        raise Refused("content", f"{target.path}: {exc}") from None
    if len(_good) >= _MOST_GOOD:
        _good.clear()
    _good.add(content)


def _check(path: str, mine: TargetFile, other: TargetFile | None, org: int) -> Target:
    product = _product(path, org)
    if other is None:
        raise _mixed(path, "the director has it, the config repository lacks it")
    _check_lengths_and_hashes(path, mine, other)
    try:
        fields = custom.parse(_custom(mine), director=True)
        others = custom.parse(_custom(other), director=False)
    except ConfigError as exc:
        raise Refused("content", f"{path}: {exc}") from None
    if fields.version != others.version:
        raise _mixed(path, f"custom.v is {fields.version} and {others.version}")
    return Target(path, product, mine, fields)


def _product(path: str, org: int) -> str:
    try:
        parts = paths.parse(path)
        catalogue.check_product(parts.product)
    except ConfigError as exc:
        raise Refused("path", f"a target of the director: {exc}") from None
    if parts.org != org:
        raise Refused("path", f"{path} is of org {parts.org}, needed: {org}, this service's `org`")
    return parts.product


def _check_lengths_and_hashes(path: str, mine: TargetFile, other: TargetFile) -> None:
    for length in (mine.length, other.length):
        if not isinstance(length, int) or isinstance(length, bool):
            raise Refused("malformed", f"{path}: the length is {length!r}, needed: a whole number")
    if mine.length > catalogue.MAX_CONTENT:
        raise Refused(
            "endless_data",
            f"{path} has {mine.length} bytes, needed: at most {catalogue.MAX_CONTENT}",
        )
    if "sha256" not in mine.hashes:
        raise Refused("wrong_hash", f"{path} has no sha256 among its hashes: publish anew")
    if mine.length != other.length:
        raise _mixed(path, f"the lengths are {mine.length} and {other.length}")
    if set(mine.hashes) != set(other.hashes):
        raise _mixed(path, f"hashed with {_names(mine)} and with {_names(other)}")
    for algorithm, value in mine.hashes.items():
        if other.hashes[algorithm] != value:
            raise _mixed(path, f"the {algorithm} hashes differ")


def _mixed(path: str, found: str) -> Refused:
    return Refused(
        "mix_and_match", f"{path}: director and config repository disagree: {found}: publish anew"
    )


def _names(file: TargetFile) -> str:
    return ", ".join(sorted(ascii(name[:20])[1:-1] for name in file.hashes))


def _custom(file: TargetFile) -> Any:
    return file.custom
