# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was published, received, applied, and what is in force on a host, side by side. Pure.

Published is what the signed metadata of the director says that the agent has verified last; what
the service has got since, the host cannot know.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import (
    custom as custom_fields,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import (
    paths,
    predicates,
    strict_json,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.catalogue import PRODUCTS
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.predicates import HostFacts

APPLIED = "APPLIED"
PHASES = ("UNKNOWN", "RECEIVED", "APPLYING", APPLIED, "FAILED")

_TARGETS_LIMIT = 5_000_000  # what python-tuf takes


class Applied(NamedTuple):
    """How far the agent has come with a config: a row of its table `states`."""

    path: str
    version: int
    sha256: str
    phase: int
    reason: str
    fingerprint: str
    changed_at: int


@dataclass(frozen=True)
class Stored:
    """What the agent has on disk. `targets` is the director's raw metadata; `expired` says that
    the agent has let go of all configs because the director has expired.
    """

    targets: bytes | None = None
    expired: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    states: tuple[Applied, ...] = ()


class Host(NamedTuple):
    """Whom a config has to be for to be this host's."""

    facts: HostFacts
    products: tuple[str, ...] = PRODUCTS
    org: int = 1

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Host:
        """From the agent's settings."""
        facts = HostFacts(
            str(settings.get("host", "")),
            frozenset(settings.get("groups") or ()),
            settings.get("labels") or {},
        )
        return cls(facts, tuple(settings.get("products", PRODUCTS)), settings.get("org", 1))

    def is_meant(self, path: str, conditions: list[Any]) -> bool:
        """Whether a config with these predicates is for it."""
        try:
            parsed = paths.parse(path)
        except ConfigError:
            return False
        return (
            parsed.org == self.org
            and parsed.product in self.products
            and predicates.matches(conditions, self.facts)
        )


def published(targets: bytes, host: Host) -> dict[str, dict[str, Any]]:
    """What the director's metadata says of each config, by path; raises ConfigError."""
    data = strict_json.loads(targets, "the director's targets", _TARGETS_LIMIT)
    try:
        listed = data["signed"]["targets"]  # type: ignore[index]
        return {path: _published(path, target, host) for path, target in listed.items()}
    except (KeyError, TypeError, AttributeError):
        raise ConfigError("the director's targets have not the form of TUF metadata") from None


def _published(path: str, target: Mapping[str, Any], host: Host) -> dict[str, Any]:
    custom = custom_fields.parse(target.get("custom"), director=True)
    return {
        "version": custom.version,
        "sha256": target["hashes"].get("sha256"),
        "length": target["length"],
        "expires": custom.expires,
        "predicates": custom.predicates,
        "for_this_host": host.is_meant(path, custom.predicates),
    }


def configs(stored: Stored, host: Host, now: int) -> list[dict[str, Any]]:
    """All configs that anything is known of, by path; raises ConfigError if metadata is damaged."""
    known = published(stored.targets, host) if stored.targets else {}
    states = {state.path: state for state in stored.states}
    return [
        {
            "path": path,
            "product": _product(path),
            "published": known.get(path),
            "received": _received(stored.files.get(path)),
            "applied": _applied(states.get(path), now),
        }
        for path in sorted({*known, *stored.files, *states})
    ]


def _product(path: str) -> str | None:
    try:
        return paths.parse(path).product
    except ConfigError:
        return None


def _received(raw: bytes | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    return {"sha256": hashlib.sha256(raw).hexdigest(), "length": len(raw), "content": content}


def _applied(state: Applied | None, now: int) -> dict[str, Any] | None:
    if state is None:
        return None
    return {
        "version": state.version,
        "sha256": state.sha256,
        "phase": PHASES[state.phase] if 0 <= state.phase < len(PHASES) else PHASES[0],
        "reason": state.reason or None,
        "fingerprint": state.fingerprint or None,
        "changed_at": state.changed_at,
        "age_seconds": age(state.changed_at, now),
    }


def age(then: int, now: int) -> int | None:
    """Seconds since, None for never. A clock that was put back makes nothing younger than now."""
    return max(now - then, 0) if then else None


def disagreements(found: list[dict[str, Any]], expired: bool, now: int) -> list[str]:
    """A line for each config that is not in force as it was published for this host."""
    lines = ["the director has expired: no config is in force"] if expired else []
    return lines + [
        f"{config['path']}: {reason}"
        for config in found
        for reason in [_disagreement(config, now)]
        if reason and not (expired and config["received"] is None)
    ]


def _disagreement(config: Mapping[str, Any], now: int) -> str | None:
    meant, received, applied = config["published"], config["received"], config["applied"]
    expires = meant["expires"] if meant else 0
    if meant is None or not meant["for_this_host"] or (expires and now >= expires):
        return "in force here, but not published for this host" if received or applied else None
    if received is None:
        return f"version {meant['version']} is published, but was not received"
    if received["sha256"] != meant["sha256"]:
        return f"version {meant['version']} is published, but another content was received"
    if applied is None:
        return f"version {meant['version']} was received, but the agent says nothing of it"
    if (applied["version"], applied["sha256"]) != (meant["version"], meant["sha256"]):
        return (
            f"version {meant['version']} was received, but {applied['version']} is what is applied"
        )
    if applied["phase"] != APPLIED:
        reason = f" ({applied['reason']})" if applied["reason"] else ""
        return f"version {meant['version']} is {applied['phase']}{reason}"
    return None


def effective(
    record: Mapping[str, Any] | None,
    owners: Mapping[str, str | None],
    base: Mapping[str, Any] | None,
    agent: Iterable[Mapping[str, Any]],
    now: int,
) -> list[dict[str, Any]]:
    """Each value in force, with its owner and the base's value.

    Those of CONNTRACK are from the tracker's record in the kernel, the others from what the running
    agent says of itself.
    """
    rows = []
    if record:
        since = age(int(record["loaded_at"]), now)
        for key, value in sorted(record["spec"].items()):
            rows.append(
                {
                    "key": f"CONNTRACK.{key}",
                    "value": value,
                    "owner": owners.get(key),
                    "base": base.get(key) if base else None,
                    "age_seconds": since,
                }
            )
    return rows + [
        {
            "key": one["key"],
            "value": _value(one["value"]),
            "owner": one["owner"] or None,
            "base": None,
            "age_seconds": None,
        }
        for one in agent
        if not one["key"].startswith("CONNTRACK.")
    ]


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def agent_summary(state: Mapping[str, Any] | None, now: int) -> dict[str, Any]:
    """What `btfleet status --json` says of the agent, as far as it concerns remote config."""
    if state is None:
        return {"installed": False, "running": False, "error": None}
    if not state.get("running"):
        return {"installed": True, "running": False, "error": state.get("error")}
    client, health = state.get("client") or {}, state.get("health") or {}
    success = int(state.get("last_success_at") or 0)
    return {
        "installed": True,
        "running": True,
        "error": client.get("error") or health.get("last_error") or None,
        "healthy": bool(health.get("healthy")),
        "version": state.get("version"),
        "service": state.get("service"),
        "root_version": int(client.get("root_version") or 0),
        "targets_version": int(client.get("targets_version") or 0),
        "last_poll_at": int(state.get("last_poll_at") or 0),
        "last_success_at": success,
        "age_seconds": age(success, now),
        "polling_ended": bool(state.get("polling_ended")),
    }
