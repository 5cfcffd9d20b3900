# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading what is to be in force: the base, and over it what remote config wants.

Two may load at a time, a rollout and the agent's request, each with what it read before. Both look
again when they are done, and load again if it has changed, so that the last one to load is right.
"""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

from .._kernel.errors import InvalidSpec, LoadUnfinished, TrackerError
from .._kernel.loader.load import Outcome, Tracker
from .._kernel.spec import Spec
from .._kernel.store import Store
from . import remote
from .remote import APPLIED, FAILED, Answer, Effective, WantedRefused

# An agent that writes again and again must not keep a rollout here; systemd calls for the rest
_PASSES = 5


class Result(NamedTuple):
    """What came of a load. `effective.reason` says why what is wanted is not in force."""

    outcome: Outcome
    effective: Effective


def read_base(store: Store) -> Spec:
    """The spec file; raises InvalidSpec if it is missing or damaged."""
    spec = store.read_spec()
    if spec is None:
        raise InvalidSpec(
            f"{store.spec_path} is missing: install the object first "
            "(module btfleet.conntrack.conntrack_object)"
        )
    return spec


def choose(store: Store, base: Spec, allowed: frozenset[str] | None = None) -> Effective:
    """What a rollout has to bring into force: the base where a load of what is wanted has failed.

    Without that, each rollout would try again, and fail for a decision that is not its own.
    """
    effective = remote.effective(store, base, allowed)
    answer = remote.read_answer(store)
    if answer and remote.has_failed(effective, answer):
        return remote.base_alone(base, effective.request, answer.reason)
    return effective


def bring(tracker: Tracker, base: Spec) -> Result:
    """For a rollout: brings `base` into force, and what is wanted over it if that can be had.

    Raises a TrackerError if the base itself cannot be loaded; what ran before runs on.
    """
    return _load(tracker, base, choose(tracker.store, base), keep_running=False)


def answer_request(tracker: Tracker, base: Spec) -> Result:
    """For the agent and for boot: tries what is wanted over `base`.

    Raises a TrackerError if that cannot be had and a tracker runs, which runs on. Where nothing
    runs yet, the base is loaded instead.
    """
    effective = remote.effective(tracker.store, base)
    return _load(tracker, base, effective, keep_running=tracker.read().record is not None)


def settle(tracker: Tracker, load: Callable[[Tracker, Spec], Result]) -> Result:
    """Has `load` (one of the two above) do the spec file, until that is what there still is."""
    for _number in range(_PASSES):
        wanted = remote.effective(tracker.store, read_base(tracker.store))
        failure = None
        try:
            result = load(tracker, read_base(tracker.store))
        except TrackerError as exc:
            failure = exc
        if remote.effective(tracker.store, read_base(tracker.store)) == wanted:
            break
    if failure:
        raise failure
    return result


def _load(tracker: Tracker, base: Spec, effective: Effective, keep_running: bool) -> Result:
    store = tracker.store
    if effective.reason is None:
        try:
            return Result(_in_force(tracker, effective), effective)
        except LoadUnfinished:  # it is active all the same, and the message says what is wrong
            _answer(store, effective, effective.spec.fingerprint)
            raise
        except TrackerError as exc:
            failed = remote.base_alone(base, effective.request, str(exc))
            if effective.request is not None:
                _answer(store, failed, effective.spec.fingerprint)
            if keep_running or effective.spec == base:
                raise
            effective = failed
    elif not _is_answered(store, effective):
        _answer(store, effective, None)
    if keep_running:
        raise WantedRefused(
            f"what remote config wants is refused ({effective.reason}): "
            "the tracker that ran before keeps running",
            effective.request,
        )
    outcome = tracker.load(base)
    return Result(outcome, effective)


def _in_force(tracker: Tracker, effective: Effective) -> Outcome:
    outcome = tracker.load(effective.spec)
    _answer(tracker.store, effective, effective.spec.fingerprint)
    return outcome


def _is_answered(store: Store, effective: Effective) -> bool:
    answer = remote.read_answer(store)
    return answer is not None and (answer.request, answer.reason) == (
        effective.request,
        effective.reason,
    )


def _answer(store: Store, effective: Effective, fingerprint: str | None) -> None:
    if effective.request is None and effective.reason is None:
        remote.forget_answer(store)
        return
    state = APPLIED if effective.reason is None else FAILED
    answer = Answer(effective.request, state, fingerprint, effective.reason, int(time.time()))
    remote.write_answer(store, answer)
