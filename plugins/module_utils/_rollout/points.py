# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore points: states of a host that are known to have worked. Pure.

The first one is the way back. The others are kept for a rollback by hand, one for each release, and
without the agent's secrets: a token is replaced while releases stay.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.poller_agent import (
    SETTINGS,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError

_FORMAT = 1


class TrackerPoint(NamedTuple):
    """The spec file, what remote config may override, and whether the tracker is loaded."""

    spec: Mapping[str, object]
    remote_keys: tuple[str, ...] = ()
    loaded: bool = True


@dataclass(frozen=True)
class RestorePoint:
    """What a host had. None stands for what was not there; all None is a fresh host.

    `boot` says whether the boot unit was there, `agent` has the text of the poller agent's files,
    `at` is when it was recorded (Unix seconds).
    """

    release: str | None = None
    boot: bool = False
    tracker: TrackerPoint | None = None
    agent: Mapping[str, str] | None = None
    at: int = 0

    def same(self, other: RestorePoint) -> bool:
        """Whether both are the same state, whenever that was."""
        return replace(self, at=0) == replace(other, at=0)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing of ours was on the host."""
        return self.same(RestorePoint())

    @property
    def object_sha256(self) -> str | None:
        """The digest of the object that it needs."""
        return str(self.tracker.spec["object_sha256"]) if self.tracker else None

    def describe(self) -> str:
        """A few words for a person."""
        if self.is_nothing:
            return "nothing installed"
        words = [f"release {self.release}" if self.release else "no release"]
        if self.object_sha256:
            words.append(f"object {self.object_sha256[:12]}")
        words.append("the poller agent" if self.agent is not None else "no poller agent")
        return ", ".join(words)

    def to_public(self) -> dict[str, object]:
        """What may be shown: all but the content of the agent's files."""
        tracker = self.tracker._asdict() if self.tracker else None
        agent = sorted(self.agent) if self.agent is not None else None
        return {
            "agent_files": agent,
            "boot": self.boot,
            "release": self.release,
            "tracker": {**tracker, "remote_keys": list(tracker["remote_keys"])}
            if tracker
            else None,
        }


Points = Sequence[RestorePoint]


def passed(points: Points, point: RestorePoint, keep: int) -> list[RestorePoint]:
    """The points once `point` has passed its gate, with those of at most `keep` other releases."""
    others = [
        without_secrets(former)
        for former in points
        if former.release not in (None, point.release) and former.tracker is not None
    ]
    return [point, *others[:keep]]


def without_secrets(point: RestorePoint) -> RestorePoint:
    """The same with the agent's settings alone; token and certificates stay those of the day."""
    if point.agent is None:
        return point
    return replace(point, agent={name: t for name, t in point.agent.items() if name == SETTINGS})


def pinned_releases(points: Points) -> frozenset[str]:
    """The releases that must not be taken away: that of the way back."""
    return frozenset(point.release for point in points[:1] if point.release is not None)


def pinned_objects(points: Points) -> frozenset[str]:
    """The digests of the objects that the points need."""
    digests = [point.object_sha256 for point in points]
    return frozenset(digest for digest in digests if digest is not None)


def choose(
    points: Points, wanted: str | None, releases: Sequence[str], now: RestorePoint
) -> RestorePoint:
    """The point that a host is to return to: the way back, or what fits the `wanted` release.

    `wanted` may be `previous`: the release before the current one. `releases` are those on the
    host, newest first. A release without a point gets the spec of now. Raises HostError.
    """
    if wanted is None:
        if not points:
            raise HostError("no state that is known to have worked was recorded")
        return points[0]
    former = [point for point in points if point.release not in (None, now.release)]
    if wanted == "previous":
        if former:
            return former[0]
        others = [name for name in releases if name != now.release]
        if not others:
            raise HostError(
                f"there is no release but {now.release}: nothing to roll back to (variable "
                "conntracker_keep_releases says how many are kept)"
            )
        wanted = others[0]
    if wanted not in releases:
        raise HostError(
            f"the release {wanted} is not on the host, kept are: {', '.join(releases) or 'none'}"
        )
    found = [point for point in former if point.release == wanted]
    return found[0] if found else replace(without_secrets(now), release=wanted)


# --- text ---------------------------------------------------------------------------------------


def to_json(points: Points) -> str:
    """The text of the file."""
    return json.dumps({"format": _FORMAT, "points": list(map(asdict, points))}, indent=1) + "\n"


def from_json(text: str) -> list[RestorePoint]:
    """The points of a file; none if it is damaged: it is written again by the next rollout."""
    try:
        data = json.loads(text)
        if data["format"] != _FORMAT:
            return []
        return [_parse(one) for one in data["points"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _parse(data: Mapping[str, object]) -> RestorePoint:
    tracker, agent, at = data["tracker"], data["agent"], data["at"]
    if not isinstance(at, int):
        raise TypeError
    return RestorePoint(
        release=_text_or_none(data["release"]),
        boot=data["boot"] is True,
        tracker=None if tracker is None else _parse_tracker(tracker),
        agent=None if agent is None else _texts(agent),
        at=at,
    )


def _parse_tracker(data: object) -> TrackerPoint:
    if not isinstance(data, list):
        raise TypeError
    spec, keys, loaded = data
    if not isinstance(spec, dict) or "object_sha256" not in spec:
        raise TypeError
    return TrackerPoint(spec, tuple(map(str, _list(keys))), loaded is True)


def _list(data: object) -> Iterable[object]:
    if not isinstance(data, list):
        raise TypeError
    return data


def _texts(data: object) -> dict[str, str]:
    if not isinstance(data, dict) or not all(isinstance(text, str) for text in data.values()):
        raise TypeError
    return data


def _text_or_none(data: object) -> str | None:
    if data is not None and not isinstance(data, str):
        raise TypeError
    return data
