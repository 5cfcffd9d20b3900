# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which configs there are and which are wanted: the targets of both repositories. No files."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import (
    catalogue,
    custom,
    paths,
    predicates,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError

from . import libraries

_HASH = "sha256"
_NUMBER = re.compile(r"[0-9]{1,19}")


class Config(NamedTuple):
    """A config that is wanted: its path and content, whom it is for, until when (0 = for ever)."""

    path: str
    raw: bytes
    predicates: list[Any]
    expires: int


class Wanted(NamedTuple):
    """Configs to be there, paths not to be there, and whether all others are to go too."""

    present: tuple[Config, ...]
    absent: tuple[str, ...]
    exclusive: bool = False


Targets = Mapping[str, "libraries.TargetFile"]


class Change(NamedTuple):
    """The targets of both repositories as they will be, and the paths that differ."""

    director: dict[str, libraries.TargetFile]
    config: dict[str, libraries.TargetFile]
    published: list[str]
    withdrawn: list[str]


def wanted(entries: Sequence[Mapping[str, Any]], org: int, exclusive: bool) -> Wanted:
    """What a user asks for, checked.

    An entry has `product`, `id`, `name`, `state` (present or absent) and, if present, `content`
    and maybe `predicates` and `expires`. Raises ConfigError, naming the path, for anything that a
    host would refuse, and for a path that stands twice.
    """
    present: list[Config] = []
    absent: list[str] = []
    seen = set()
    for entry in entries:
        path = _path(entry, org)
        if path in seen:
            raise ConfigError(f"{path} stands twice: ask for it once")
        seen.add(path)
        if entry["state"] == "absent":
            absent.append(path)
            continue
        try:
            present.append(_config(path, entry))
        except ConfigError as exc:
            raise ConfigError(f"{path}: {exc}") from None
    return Wanted(tuple(present), tuple(absent), exclusive)


def change(director: Targets, config: Targets, asked: Wanted, version: int) -> Change:
    """What the targets will be.

    `version` is the next one of the config repository's targets. A config whose content is new
    takes it as its `v`: so `v` rises also over a withdrawal, and nobody has to remember it.
    """
    new_director, new_config = dict(director), dict(config)
    published: list[str] = []
    for one in asked.present:
        target = libraries.TargetFile.from_data(one.path, one.raw, [_HASH])
        old = config.get(one.path)
        same = old is not None and old.length == target.length and old.hashes == target.hashes
        v = custom.parse(old.custom, director=False).version if old and same else version
        for_director = _target(target, _director_custom(v, one))
        for_config = _target(target, {"v": v})
        if director.get(one.path) != for_director or config.get(one.path) != for_config:
            new_director[one.path], new_config[one.path] = for_director, for_config
            published.append(one.path)
    going = set(asked.absent)
    if asked.exclusive:
        going.update(set(director).union(config) - {one.path for one in asked.present})
    withdrawn = sorted(path for path in going if path in director or path in config)
    for path in withdrawn:
        new_director.pop(path, None)
        new_config.pop(path, None)
    return Change(new_director, new_config, published, withdrawn)


def parse_expires(text: str | None) -> int:
    """Unix seconds from `2026-12-31`, `2026-12-31T18:00:00Z` or seconds; nothing gives 0.

    Raises ConfigError for anything else, and for a time without a zone.
    """
    if text is None or text == "":
        return 0
    if _NUMBER.fullmatch(text) and int(text) <= custom.MAX_NUMBER:
        return int(text)
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S%z"):  # YAML makes the last
        try:
            moment = datetime.strptime(text, form)  # noqa: DTZ007  (a date has none)
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = int(moment.timestamp())
        if seconds > 0:
            return seconds
    raise ConfigError(
        f"expires is {ascii(text)[:100]}, needed: a date (2026-12-31, from 00:00 UTC on), a time "
        "with its zone (2026-12-31T18:00:00Z), or Unix seconds"
    )


def describe(path: str, director: Targets, raw: bytes | None) -> dict[str, Any]:
    """A config in the form that a diff and a result show."""
    target = director[path]
    said = target.custom or {}
    return {
        "version": said.get("v"),
        "sha256": target.hashes.get(_HASH),
        "predicates": said.get("predicates", []),
        "expires": said.get("expires", 0),
        "content": None if raw is None else json.loads(raw.decode()),
    }


def _path(entry: Mapping[str, Any], org: int) -> str:
    catalogue.check_product(entry["product"])
    for key in ("id", "name"):
        paths.check_segment(key, entry[key])
    return str(paths.ConfigPath(org, entry["product"], entry["id"], entry["name"]))


def _config(path: str, entry: Mapping[str, Any]) -> Config:
    if entry.get("content") is None:
        raise ConfigError("content is missing, needed: an object of settings")
    raw = _canonical(entry["content"])
    catalogue.check_content(entry["product"], raw)
    for_whom = [_without_empty(one) for one in entry.get("predicates") or []]
    return Config(path, raw, predicates.check(for_whom), parse_expires(entry.get("expires")))


def _canonical(content: object) -> bytes:
    """One form, so that equal content has equal bytes."""
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"the content is no JSON ({exc}): give an object of settings") from None
    return text.encode() + b"\n"


def _without_empty(predicate: object) -> object:
    if not isinstance(predicate, Mapping):
        return predicate
    return {key: value for key, value in predicate.items() if value not in (None, "", {})}


def _director_custom(version: int, config: Config) -> dict[str, Any]:
    said: dict[str, Any] = {"v": version}
    if config.predicates:
        said["predicates"] = config.predicates
    if config.expires:
        said["expires"] = config.expires
    return said


def _target(target: libraries.TargetFile, said: dict[str, Any]) -> libraries.TargetFile:
    return libraries.TargetFile(
        target.length, target.hashes, target.path, unrecognized_fields={"custom": said}
    )
