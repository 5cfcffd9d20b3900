# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remote config on a host: what the poller agent wants, checked and laid over the base.

The agent is not trusted here. What it wants is taken only as far as `remote.json` allows, which
Ansible writes, and whatever is wrong with it ends as one line in `applied.json`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Iterable, Mapping, NamedTuple

from .._kernel.errors import InvalidSpec, TrackerError
from .._kernel.spec import Spec
from .._kernel.store import Store, write_atomically
from . import paths, strict_json
from .catalogue import KEYS, check_settings
from .errors import ConfigError
from .merge import BASE, merge

PRODUCT = "CONNTRACK"
# What may stand in remote.json
KNOWN_KEYS = tuple(f"{product}.{key}" for product in KEYS for key in KEYS[product])

APPLIED, FAILED = "applied", "failed"

_LIMIT = 64 * 1024
_REQUEST = re.compile(r"[0-9a-f]{64}")


class WantedRefused(TrackerError):
    """What remote config wants is not taken. `request` is its number, None if unreadable."""

    def __init__(self, reason: str, request: str | None = None) -> None:
        super().__init__(reason)
        self.request = request


class Wanted(NamedTuple):
    """The content of wanted.json: settings to override, and the path of the config of each."""

    request: str
    settings: Mapping[str, object]
    owners: Mapping[str, str]


@dataclass(frozen=True)
class Effective:
    """The spec that is to be in force, and the owner of each setting (`base` or a path).

    `request` is the one it answers, None where nothing is wanted. `reason` says why what is wanted
    is not in `spec`, which is then the base.
    """

    spec: Spec
    owners: Mapping[str, str]
    request: str | None = None
    reason: str | None = None


class Answer(NamedTuple):
    """The content of applied.json. `fingerprint` is that of the spec that was tried, None where
    what is wanted made none.
    """

    request: str | None
    state: str
    fingerprint: str | None
    reason: str | None
    at: int


# --- deciding -----------------------------------------------------------------------------------


def request_of(settings: Mapping[str, object], owners: Mapping[str, str]) -> str:
    """The number of a request: SHA-256 (hex) of the canonical JSON of what it asks for."""
    wanted = {"owners": owners, "settings": settings}
    import hashlib  # noqa: PLC0415 OpenSSL is slow to start

    canonical = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_wanted(raw: bytes, name: str) -> Wanted:
    """What wanted.json says; raises WantedRefused for anything that is not exactly its form."""
    request = None
    try:
        data = strict_json.loads(raw, name, _LIMIT)
        if not isinstance(data, dict) or set(data) != set(Wanted._fields):
            raise ConfigError(f"{name} is no object of {', '.join(Wanted._fields)}")
        if isinstance(data["request"], str) and _REQUEST.fullmatch(data["request"]):
            request = data["request"]
        settings, owners = data["settings"], data["owners"]
        checked = check_settings(PRODUCT, settings)
        if not isinstance(owners, dict) or set(owners) != set(settings):
            raise ConfigError(f"{name} does not name one owner for each setting")
        for owner in owners.values():
            if paths.parse(owner).product != PRODUCT:
                raise ConfigError(f"{owner} is no config of the product {PRODUCT}")
        if request is None or request != request_of(settings, owners):
            raise ConfigError(f"request in {name} is not the SHA-256 of its settings and owners")
    except ConfigError as exc:
        raise WantedRefused(str(exc), request) from None
    return Wanted(request, checked, owners)


def parse_allowed(raw: bytes, name: str) -> frozenset[str]:
    """The keys that remote.json allows to override; raises InvalidSpec if it is damaged."""
    try:
        data = strict_json.loads(raw, name, _LIMIT)
    except ConfigError as exc:
        raise InvalidSpec(str(exc)) from None
    if not isinstance(data, dict) or set(data) != {"keys"} or not isinstance(data["keys"], list):
        raise InvalidSpec(f'{name} is not {{"keys": […]}}: write it again')
    return check_keys(data["keys"], f"keys in {name}")


def check_keys(keys: Iterable[object], name: str) -> frozenset[str]:
    """The keys, if remote config can have them at all; raises InvalidSpec."""
    for key in keys:
        if key not in KNOWN_KEYS:
            raise InvalidSpec(f"{name}: {key!r} is no key, known are: {', '.join(KNOWN_KEYS)}")
    return frozenset(str(key) for key in keys)


def overlay(base: Spec, wanted: Wanted, allowed: frozenset[str]) -> Effective:
    """The base with what is wanted laid over it; raises WantedRefused if it may not be."""
    configs: dict[str, dict[str, object]] = {}
    for key, owner in wanted.owners.items():
        configs.setdefault(owner, {})[key] = wanted.settings[key]
    merged = merge(PRODUCT, base.to_dict(), configs, allowed)
    for path, reason in sorted(merged.refused.items()):
        raise WantedRefused(f"{path}: {reason}", wanted.request)
    try:
        spec = Spec.from_dict(merged.values)
    except InvalidSpec as exc:
        raise WantedRefused(str(exc), wanted.request) from None
    return Effective(spec, merged.owners, wanted.request)


def base_alone(base: Spec, request: str | None = None, reason: str | None = None) -> Effective:
    """The base, with nothing laid over it."""
    return Effective(base, dict.fromkeys(base.to_dict(), BASE), request, reason)


def has_failed(effective: Effective, answer: Answer | None) -> bool:
    """Whether a load of this very spec for this very request has failed already."""
    return (
        answer is not None
        and answer.state == FAILED
        and effective.request is not None
        and answer.request == effective.request
        and answer.fingerprint == effective.spec.fingerprint
    )


def owners_in_force(
    loaded: Mapping[str, object], base: Spec | None, effective: Effective | None
) -> dict[str, str | None]:
    """The owner of each setting of the spec that is loaded, None where that cannot be told."""
    if effective and effective.spec.to_dict() == loaded:
        return dict(effective.owners)
    settings = base.to_dict() if base else {}
    return {
        key: BASE if key in settings and settings[key] == value else None
        for key, value in loaded.items()
    }


# --- files --------------------------------------------------------------------------------------


def read_allowed(store: Store) -> frozenset[str]:
    """What remote.json allows, nothing if it is not there; raises InvalidSpec if it is damaged."""
    try:
        with open(store.remote_path, "rb") as stream:
            return parse_allowed(stream.read(_LIMIT + 1), store.remote_path)
    except FileNotFoundError:
        return frozenset()


def write_allowed(store: Store, keys: Iterable[str]) -> None:
    """Writes remote.json; without keys there is none."""
    wanted = sorted(keys)
    if wanted:
        content = json.dumps({"keys": wanted}, indent=2) + "\n"
        write_atomically(store.remote_path, content.encode())
    elif os.path.lexists(store.remote_path):
        os.unlink(store.remote_path)


def read_wanted(store: Store) -> Wanted | None:
    """What the agent wants, None if there is no file; raises WantedRefused.

    The agent's folder is its own, so this may be anything: it is opened only if it is a plain file.
    """
    path = store.wanted_path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise WantedRefused(f"cannot read {path} ({exc.strerror})") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise WantedRefused(f"{path} is no plain file")
        return parse_wanted(os.read(fd, _LIMIT + 1), path)
    finally:
        os.close(fd)


def effective(store: Store, base: Spec, allowed: frozenset[str] | None = None) -> Effective:
    """What is to be in force over this base: with what is wanted, if that is to be had.

    `allowed` stands for what remote.json says, where that is about to be written.
    """
    try:
        wanted = read_wanted(store)
        if wanted is None:
            return base_alone(base)
        try:
            keys = read_allowed(store) if allowed is None else allowed
        except InvalidSpec as exc:
            raise WantedRefused(str(exc), wanted.request) from None
        return overlay(base, wanted, keys)
    except WantedRefused as exc:
        return base_alone(base, exc.request, str(exc))


def read_answer(store: Store) -> Answer | None:
    """The last answer, None if there is none or it cannot be read."""
    try:
        with open(store.applied_path, "rb") as stream:
            data = strict_json.loads(stream.read(_LIMIT + 1), store.applied_path, _LIMIT)
    except (OSError, ConfigError):
        return None
    if not isinstance(data, dict) or set(data) != set(Answer._fields):
        return None
    return Answer(**data)


def write_answer(store: Store, answer: Answer) -> None:
    """Writes applied.json, for the agent to read."""
    write_atomically(store.applied_path, json.dumps(answer._asdict()).encode() + b"\n")


def forget_answer(store: Store) -> None:
    """Removes applied.json: nothing is wanted any more."""
    if os.path.lexists(store.applied_path):
        os.unlink(store.applied_path)
