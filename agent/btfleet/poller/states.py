# SPDX-License-Identifier: GPL-3.0-or-later
"""How far each config has come on this host: RECEIVED, APPLYING, APPLIED or FAILED, and why."""

from __future__ import annotations

import threading
import time
from typing import Callable, Iterable, Mapping, NamedTuple

from btfleet.config.v1.config_pb2 import (
    APPLY_PHASE_APPLIED,
    APPLY_PHASE_APPLYING,
    APPLY_PHASE_FAILED,
    APPLY_PHASE_RECEIVED,
    ApplyPhase,
)
from btfleet.poller.verify import Config

RECEIVED = int(APPLY_PHASE_RECEIVED)
APPLYING = int(APPLY_PHASE_APPLYING)
APPLIED = int(APPLY_PHASE_APPLIED)
FAILED = int(APPLY_PHASE_FAILED)

MAX_REASON = 1000


class ApplyState(NamedTuple):
    """One config's state. `fingerprint` is the one that was read back, once APPLIED."""

    path: str
    version: int
    sha256: str
    phase: int
    reason: str
    fingerprint: str
    changed_at: int


def phase_name(phase: int) -> str:
    """A phase as a word, for example APPLIED."""
    return ApplyPhase.Name(ApplyPhase.ValueType(phase)).replace("APPLY_PHASE_", "")


class StateBook:
    """The states of all configs that are in force. Any thread may report."""

    def __init__(
        self, before: Iterable[ApplyState] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self._states = {state.path: state for state in before}
        self._clock = clock
        self._lock = threading.Lock()

    def set_configs(self, configs: Mapping[str, Config]) -> None:
        """These are in force now: new ones are RECEIVED, others keep their state, the rest go."""
        with self._lock:
            self._states = {
                path: self._kept(path, config) or self._new(path, config)
                for path, config in configs.items()
            }

    def _kept(self, path: str, config: Config) -> ApplyState | None:
        state = self._states.get(path)
        if state and (state.version, state.sha256) == (config.version, config.sha256):
            return state
        return None

    def _new(self, path: str, config: Config) -> ApplyState:
        now = int(self._clock())
        return ApplyState(path, config.version, config.sha256, RECEIVED, "", "", now)

    def report(self, config: Config, phase: int, reason: str = "", fingerprint: str = "") -> bool:
        """A listener's word on a config; says whether that is new.

        What it says of a config that is not in force any more is ignored.
        """
        path = str(config.path)
        reason = " ".join(reason.split())[:MAX_REASON]
        with self._lock:
            state = self._kept(path, config)
            after = (phase, reason, fingerprint)
            if state is None or (state.phase, state.reason, state.fingerprint) == after:
                return False
            changed_at = state.changed_at if phase == state.phase else int(self._clock())
            self._states[path] = ApplyState(
                path, config.version, config.sha256, phase, reason, fingerprint, changed_at
            )
            return True

    def all(self) -> list[ApplyState]:
        """A copy, by path."""
        with self._lock:
            return [self._states[path] for path in sorted(self._states)]
