# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be signed anew, and with which keys. Decisions only: no files, no clock, no keys.

The two repositories (director and config repository) are planned by themselves, each with its four
top-level roles. A role that gets a new version takes those with it that vouch for it: targets need
a new snapshot, a snapshot a new timestamp, and other keys or settings a new root.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Dict, Mapping, NamedTuple

from .errors import PublisherError

REPOSITORIES = ("director", "config")
ROLES = ("root", "targets", "snapshot", "timestamp")

MAX_KEYS = 16
MAX_DAYS = 3650

# A clock that was set back by less is not a reason to sign anew
_CLOCK_SLACK = timedelta(hours=1)
_VOUCHED_BY = {"targets": "snapshot", "snapshot": "timestamp"}


class RoleWanted(NamedTuple):
    """How many keys a role has, how many have to sign, and for how long a signature is good."""

    keys: int
    threshold: int
    days: int


DEFAULTS = {
    "root": RoleWanted(2, 1, 365),
    "targets": RoleWanted(1, 1, 90),
    "snapshot": RoleWanted(1, 1, 30),
    "timestamp": RoleWanted(1, 1, 7),
}


class RoleState(NamedTuple):
    """A role as it is published. `available` are the ids of its keys that are at hand."""

    version: int
    expires: datetime
    keyids: tuple[str, ...]
    available: frozenset[str]
    threshold: int
    days: int
    rotation: str | None


class RolePlan(NamedTuple):
    """A role as it will be: which keys stay, how many new ones, and why it is signed, if it is."""

    keep: tuple[str, ...]
    fresh: int
    threshold: int
    days: int
    rotation: str | None
    reason: str | None = None


State = Mapping[str, RoleState]
Plan = Dict[str, RolePlan]


def check_wanted(role: str, wanted: RoleWanted) -> None:
    """Raises PublisherError for numbers that cannot be."""
    if not 1 <= wanted.keys <= MAX_KEYS:
        raise PublisherError(
            f"{role} is to have {wanted.keys} keys, needed: a number from 1 to {MAX_KEYS}"
        )
    if not 1 <= wanted.threshold <= wanted.keys:
        raise PublisherError(
            f"{role} is to have the threshold {wanted.threshold}, "
            f"needed: a number from 1 to its {wanted.keys} keys"
        )
    if not 1 <= wanted.days <= MAX_DAYS:
        raise PublisherError(
            f"{role} is to expire after {wanted.days} days, needed: a number from 1 to {MAX_DAYS}"
        )


def create(wanted: Mapping[str, RoleWanted], rotation: Mapping[str, str]) -> Plan:
    """The plan for a repository that is not there yet."""
    return {
        role: RolePlan((), one.keys, one.threshold, one.days, rotation.get(role), "it is created")
        for role, one in wanted.items()
    }


def converge(
    repository: str,
    state: State,
    wanted: Mapping[str, RoleWanted],
    rotation: Mapping[str, str],
    now: datetime,
    margin: int,
) -> tuple[Plan, list[str]]:
    """The plan to bring a repository to what is wanted, and warnings.

    `rotation` has, by role, the id of a rotation that is asked for; one that was done is not done
    again. A role is renewed when less than `margin` percent of its days are left. A renewal whose
    keys are not at hand is put off with a warning until the role has expired.

    Raises PublisherError if too few keys are at hand for what cannot wait.
    """
    plan = {
        role: _role(repository, role, state[role], wanted[role], rotation.get(role))
        for role in ROLES
    }
    changed = [role for role in ROLES if plan[role].reason]
    resettled = [role for role in ROLES if _is_resettled(state[role], plan[role])]
    if (changed or resettled) and not plan["root"].reason:
        what = ", ".join(sorted({*changed, *resettled}))
        plan["root"] = plan["root"]._replace(reason=f"it says anew what holds for {what}")
    plan = _with_vouchers(plan)
    _check_signers(repository, state, plan)
    warnings = []
    for role in ROLES:
        due = _is_due(state[role], wanted[role].days, now, margin)
        if plan[role].reason or not due:
            continue
        renewed = _with_vouchers({**plan, role: plan[role]._replace(reason="it is renewed")})
        try:
            _check_signers(repository, state, renewed)
        except PublisherError as exc:
            if state[role].expires <= now:
                raise
            warnings.append(
                f"{repository}.{role} expires at {state[role].expires.isoformat()} "
                f"and was not renewed: {exc}"
            )
        else:
            plan = renewed
    return plan, warnings


def publish(repository: str, state: State, now: datetime) -> Plan:
    """The plan for other targets under the same keys and settings.

    Raises PublisherError if the root has expired or too few keys are at hand.
    """
    if state["root"].expires <= now:
        raise PublisherError(
            f"{repository}.root expired at {state['root'].expires.isoformat()}, "
            "needed: one that is valid (renew it with the module config_repository)"
        )
    plan = unchanged(state)
    plan["targets"] = plan["targets"]._replace(reason="its configs change")
    plan = _with_vouchers(plan)
    _check_signers(repository, state, plan)
    return plan


def unchanged(state: State) -> Plan:
    """The plan in which nothing is signed."""
    return {
        role: RolePlan(one.keyids, 0, one.threshold, one.days, one.rotation)
        for role, one in state.items()
    }


def signed(plan: Plan) -> list[str]:
    """The roles that get a new version."""
    return [role for role in ROLES if plan[role].reason]


def _role(
    repository: str, role: str, state: RoleState, wanted: RoleWanted, rotation: str | None
) -> RolePlan:
    check_wanted(f"{repository}.{role}", wanted)
    rest = (wanted.threshold, wanted.days, rotation or state.rotation)
    if rotation and rotation != state.rotation:
        return RolePlan((), wanted.keys, *rest, reason="its keys are rotated")
    # Where keys have to go, those whose files are lost go first
    by_worth = sorted(state.keyids, key=lambda keyid: (keyid not in state.available, keyid))
    keep = tuple(sorted(by_worth[: wanted.keys]))
    reason = None
    if len(keep) != wanted.keys or keep != tuple(sorted(state.keyids)):
        reason = "the number of its keys changes"
    elif wanted.threshold != state.threshold:
        reason = "its threshold changes"
    return RolePlan(keep, wanted.keys - len(keep), *rest, reason=reason)


def _is_resettled(state: RoleState, plan: RolePlan) -> bool:
    """Whether what the root says of a role changes although its keys do not."""
    return (state.days, state.rotation) != (plan.days, plan.rotation)


def _is_due(state: RoleState, days: int, now: datetime, margin: int) -> bool:
    left = state.expires - now
    whole = timedelta(days=days)
    return left < whole * margin / 100 or left > whole + _CLOCK_SLACK


def _with_vouchers(plan: Plan) -> Plan:
    plan = dict(plan)
    for role, voucher in _VOUCHED_BY.items():  # in this order
        if plan[role].reason and not plan[voucher].reason:
            plan[voucher] = plan[voucher]._replace(reason=f"it lists the new {role}")
    return plan


def _check_signers(repository: str, state: State, plan: Plan) -> None:
    for role in signed(plan):
        one = plan[role]
        at_hand = len(state[role].available.intersection(one.keep)) + one.fresh
        _check_enough(repository, role, state[role], at_hand, one.threshold)
        if role == "root":
            at_hand = len(state[role].available.intersection(state[role].keyids))
            _check_enough(repository, role, state[role], at_hand, state[role].threshold)


def _check_enough(
    repository: str, role: str, state: RoleState, at_hand: int, threshold: int
) -> None:
    if at_hand >= threshold:
        return
    lost = ", ".join(keyid[:12] for keyid in state.keyids if keyid not in state.available)
    cure = "put them back from the backup"
    if role != "root":
        cure += f", or give it new ones (rotate: [{repository}.{role}])"
    raise PublisherError(
        f"{at_hand} of the {threshold} keys that have to sign {repository}.{role} are in the "
        f"key folder, missing are {lost}: {cure}"
    )


def as_shown(state: State | None) -> dict[str, object]:
    """The form that a diff and a result show."""
    return {
        role: {
            "version": one.version,
            "expires": one.expires.isoformat(),
            "keys": sorted(one.keyids),
            "threshold": one.threshold,
            "expiry_days": one.days,
            "rotation_id": one.rotation,
        }
        for role, one in (state or {}).items()
    }


def predicted(state: State | None, plan: Plan, now: datetime) -> dict[str, object]:
    """The same form, of what a plan leads to. Keys that do not exist yet have no id."""
    before = as_shown(state)
    after: dict[str, object] = {}
    for role, one in plan.items():
        if not one.reason and role in before and state is not None:
            version, expires = state[role].version, state[role].expires
        else:
            version = state[role].version + 1 if state else 1
            expires = expiry(now, one.days)
        keys: list[str] = sorted(one.keep) + ["a new key"] * one.fresh
        after[role] = {
            "version": version,
            "expires": expires.isoformat(),
            "keys": keys,
            "threshold": one.threshold,
            "expiry_days": one.days,
            "rotation_id": one.rotation,
        }
    return after


def expiry(now: datetime, days: int) -> datetime:
    """When what is signed now stops being good; whole seconds, as in metadata."""
    return (now + timedelta(days=days)).replace(microsecond=0)
