# SPDX-License-Identifier: GPL-3.0-or-later
"""CONNTRACK: what to ask of the loader, and what came of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Collection, Mapping, NamedTuple

from btfleet._config import catalogue
from btfleet._config.errors import ConfigError
from btfleet._config.merge import BASE, merge
from btfleet._config.remote import FAILED as LOAD_FAILED
from btfleet._config.remote import Answer, Wanted, request_of
from btfleet._kernel.errors import InvalidSpec
from btfleet._kernel.spec import Spec
from btfleet.poller.states import APPLIED, APPLYING, FAILED

PRODUCT = "CONNTRACK"

# Seconds. A load takes one or two; after so many without an answer something is wrong
ANSWER_TIMEOUT = 60.0
# What failed is tried again: memory may have been short, or the loader's unit off
RETRY = 600.0


@dataclass(frozen=True)
class Plan:
    """`spec` is what has to be in force, None where there is no base to say. `refused` has why a
    config has no part in it, by path.
    """

    wanted: Wanted
    spec: Spec | None = None
    refused: Mapping[str, str] = field(default_factory=dict)


class Asked(NamedTuple):
    """The last request: when (monotonic), how many times, and the answer that lay there before."""

    at: float
    times: int = 1
    before: Answer | None = None


class Judgement(NamedTuple):
    """The state of every config that has a part in the plan."""

    phase: int
    reason: str = ""
    fingerprint: str = ""


def settings_of(
    product: str, contents: Mapping[str, bytes]
) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    """The settings of configs whose content is good, and why the others' is not, by path."""
    good, refused = {}, {}
    for path, raw in contents.items():
        try:
            good[path] = catalogue.check_content(product, raw)
        except ConfigError as exc:
            refused[path] = str(exc)
    return good, refused


def make_plan(
    base: Spec | None, why_no_base: str, contents: Mapping[str, bytes], allowed: Collection[str]
) -> Plan:
    """The base with the configs' contents, by path, laid over it as far as that is allowed."""
    good, refused = settings_of(PRODUCT, contents)
    nothing = Wanted(request_of({}, {}), {}, {})
    if base is None:
        return Plan(nothing, None, {**dict.fromkeys(good, why_no_base), **refused})
    merged = merge(PRODUCT, base.to_dict(), good, allowed)
    refused.update(merged.refused)
    owners = {key: owner for key, owner in merged.owners.items() if owner != BASE}
    settings = {key: merged.values[key] for key in owners}
    try:
        spec = Spec.from_dict(merged.values)
    except InvalidSpec as exc:  # each is good, but not all together
        return Plan(nothing, base, {**dict.fromkeys(good, str(exc)), **refused})
    return Plan(Wanted(request_of(settings, owners), settings, owners), spec, refused)


def judge(
    plan: Plan, asked: Asked | None, answer: Answer | None, loaded: str | None, now: float
) -> Judgement:
    """What to say of the plan's configs. `loaded` is the fingerprint read back from the kernel.

    An answer that lay there before we asked is not one to that; it counts only when no other comes.
    """
    wanted = plan.spec.fingerprint if plan.spec else None
    if wanted is None:
        return Judgement(FAILED, "there is no base")
    if loaded == wanted:
        return Judgement(APPLIED, fingerprint=wanted)
    if answer is not None and answer.request != plan.wanted.request:
        answer = None
    has_failed = (
        answer is not None and answer.state == LOAD_FAILED and answer.fingerprint in (None, wanted)
    )
    is_late = asked is None or now - asked.at >= ANSWER_TIMEOUT or asked.times > 1
    if answer is not None and has_failed and (is_late or (asked and answer != asked.before)):
        return Judgement(FAILED, answer.reason or "the loader gave no reason")
    if not is_late:
        return Judgement(APPLYING)
    if loaded is None:
        return Judgement(
            FAILED, "no tracker is loaded: load one (`btfleet load`, or the playbook rollout)"
        )
    if answer is None and asked is not None:
        return Judgement(
            FAILED,
            "the loader has not answered: see `systemctl status btfleet-apply.path "
            "btfleet-apply.service`",
        )
    return Judgement(
        FAILED,
        f"the kernel has fingerprint {loaded[:12]}, needed: {wanted[:12]}: see "
        "`btfleet status` and `journalctl -u btfleet-apply.service`",
    )


def has_to_ask(
    plan: Plan, on_disk: Wanted | None, asked: Asked | None, loaded: str | None, now: float
) -> bool:
    """Whether `wanted.json` has to be written (again).

    A tracker that somebody has unloaded is not loaded again by asking again.
    """
    if plan.spec is None:
        return False
    if on_disk != plan.wanted:
        return on_disk is not None or bool(plan.wanted.settings)
    if not plan.wanted.settings or loaded is None or loaded == plan.spec.fingerprint:
        return False
    return asked is None or now - asked.at >= (ANSWER_TIMEOUT if asked.times == 1 else RETRY)
