# SPDX-License-Identifier: GPL-3.0-or-later
"""What is loaded and what is answered, when there is a base, a request over it, and failures.

The kernel is a field of the tracker here: what would be loaded, and which specs it refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from btfleet._config import effective_load, remote
from btfleet._config.remote import WantedRefused
from btfleet._kernel.errors import InvalidSpec, LoaderError, LoadUnfinished
from btfleet._kernel.loader.load import Outcome, Tracker
from btfleet._kernel.loader.state import Loaded
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store

from tests.unit.config.test_remote import NO_UDP6, PATH, UDP6, content
from tests.unit.kernel_access import needs_root

pytestmark = needs_root  # answers are given to root and the agent's group

BASE = Spec("a" * 64, max_entries=4096)
OVERRIDDEN = replace(BASE, udpv6_enabled=False)
HUGE = content({"max_entries": 4194304}, {"max_entries": PATH})
KEYS = UDP6 | {"CONNTRACK.max_entries"}


@dataclass
class FakeKernel(Tracker):
    """Takes every spec but the refused ones."""

    running: Spec | None = None
    refused: set[Spec] = field(default_factory=set)
    unfinished: set[Spec] = field(default_factory=set)
    loads: list[Spec] = field(default_factory=list)
    while_loading: Callable[[], object] = lambda: None

    def read(self) -> Loaded:
        return Loaded(self._record()) if self.running else Loaded()

    def load(self, spec: Spec) -> Outcome:
        self.loads.append(spec)
        if spec in self.refused:
            raise LoaderError("out of memory")
        changed, self.running = self.running != spec, spec
        self.while_loading()
        if spec in self.unfinished:
            raise LoadUnfinished("it is active now, but a link is still there", self._record())
        return Outcome(changed, self._record())

    def _record(self) -> dict[str, object]:
        assert self.running is not None
        return {"fingerprint": self.running.fingerprint, "spec": self.running.to_dict()}


@pytest.fixture
def tracker(tmp_path: Path) -> FakeKernel:
    """A host with a base and keys that may be overridden, where nothing runs yet."""
    (tmp_path / "agent").mkdir()
    store = Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "agent" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    store.write_spec(BASE)
    remote.write_allowed(store, KEYS)
    return FakeKernel(store, str(tmp_path / "bpf"), str(tmp_path / "run" / "lock"))


def want(tracker: FakeKernel, raw: bytes = NO_UDP6) -> None:
    Path(tracker.store.wanted_path).write_bytes(raw)


def boot(tracker: FakeKernel) -> effective_load.Result:
    return effective_load.settle(tracker, effective_load.answer_request)


def roll_out(tracker: FakeKernel, base: Spec = BASE) -> effective_load.Result:
    effective_load.bring(tracker, base)
    tracker.store.write_spec(base)
    return effective_load.settle(tracker, effective_load.bring)


def answered(tracker: FakeKernel) -> tuple[str, str | None, str | None] | None:
    """State, fingerprint and reason in applied.json."""
    answer = remote.read_answer(tracker.store)
    return (answer.state, answer.fingerprint, answer.reason) if answer else None


APPLIED = ("applied", OVERRIDDEN.fingerprint, None)


# --- the agent's request, and boot ---------------------------------------------------------------


def test_without_a_request_the_base_is_loaded_and_nothing_answered(tracker: FakeKernel) -> None:
    assert boot(tracker).effective.spec == BASE
    assert tracker.running == BASE
    assert answered(tracker) is None


def test_a_request_is_loaded_over_the_base_and_answered(tracker: FakeKernel) -> None:
    tracker.running = BASE
    want(tracker)
    result = boot(tracker)
    assert tracker.running == OVERRIDDEN
    assert result.effective.owners["udpv6_enabled"] == PATH
    assert answered(tracker) == APPLIED
    answer = remote.read_answer(tracker.store)
    assert answer is not None
    assert answer.request == remote.request_of({"udpv6_enabled": False}, {"udpv6_enabled": PATH})


@pytest.mark.parametrize("running", [None, BASE])
def test_a_request_that_is_active_with_a_problem_stays_active_and_the_problem_is_told(
    tracker: FakeKernel, running: Spec | None
) -> None:
    tracker.running, tracker.unfinished = running, {OVERRIDDEN}
    want(tracker)
    with pytest.raises(LoadUnfinished, match="a link is still there"):
        boot(tracker)
    assert tracker.running == OVERRIDDEN
    assert answered(tracker) == APPLIED


def test_a_request_that_is_in_force_is_answered_again(tracker: FakeKernel) -> None:
    """After a boot, or where the answer has got lost."""
    tracker.running = OVERRIDDEN
    want(tracker)
    assert boot(tracker).outcome.changed is False
    assert answered(tracker) == APPLIED


def test_an_empty_request_brings_the_base_back_and_is_answered(tracker: FakeKernel) -> None:
    tracker.running = OVERRIDDEN
    want(tracker, content({}, {}))
    boot(tracker)
    assert tracker.running == BASE
    assert answered(tracker) == ("applied", BASE.fingerprint, None)


def test_a_request_that_is_gone_takes_its_answer_along(tracker: FakeKernel) -> None:
    want(tracker)
    boot(tracker)
    Path(tracker.store.wanted_path).unlink()
    boot(tracker)
    assert tracker.running == BASE
    assert answered(tracker) is None


@pytest.mark.parametrize("before", [BASE, OVERRIDDEN])
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"nonsense", "is not valid JSON"),
        (content({"tiers": ["x"]}, {"tiers": PATH}), "tiers holds 'x'"),
    ],
)
def test_a_refused_request_leaves_what_runs(
    tracker: FakeKernel, before: Spec, raw: bytes, reason: str
) -> None:
    tracker.running = before
    want(tracker, raw)
    with pytest.raises(WantedRefused, match="the tracker that ran before keeps running"):
        boot(tracker)
    assert (tracker.running, tracker.loads) == (before, [])
    found = answered(tracker)
    assert found is not None
    assert found[:2] == ("failed", None)
    assert reason in str(found[2])


def test_a_key_that_is_not_allowed_is_a_refused_request(tracker: FakeKernel) -> None:
    tracker.running = BASE
    remote.write_allowed(tracker.store, [])
    want(tracker)
    with pytest.raises(WantedRefused, match="may not override"):
        boot(tracker)
    assert tracker.running == BASE


def test_a_request_that_does_not_load_leaves_what_runs(tracker: FakeKernel) -> None:
    tracker.running = OVERRIDDEN
    huge = replace(BASE, max_entries=4194304)
    tracker.refused = {huge}
    want(tracker, HUGE)
    with pytest.raises(LoaderError, match="out of memory"):
        boot(tracker)
    assert tracker.running == OVERRIDDEN
    assert answered(tracker) == ("failed", huge.fingerprint, "out of memory")


@pytest.mark.parametrize(
    ("raw", "fingerprint"),
    [(b"nonsense", None), (HUGE, replace(BASE, max_entries=4194304).fingerprint)],
)
def test_where_nothing_runs_the_base_is_loaded_instead(
    tracker: FakeKernel, raw: bytes, fingerprint: str | None
) -> None:
    tracker.refused = {replace(BASE, max_entries=4194304)}
    want(tracker, raw)
    result = boot(tracker)
    assert tracker.running == BASE
    assert result.effective.reason is not None
    found = answered(tracker)
    assert found is not None
    assert found[:2] == ("failed", fingerprint)


def test_a_request_is_tried_again_when_it_is_made_again(tracker: FakeKernel) -> None:
    tracker.running = BASE
    tracker.refused = {OVERRIDDEN}
    want(tracker)
    with pytest.raises(LoaderError):
        boot(tracker)
    tracker.refused = set()
    boot(tracker)
    assert answered(tracker) == APPLIED


def test_a_base_that_does_not_load_fails(tracker: FakeKernel) -> None:
    tracker.refused = {BASE}
    with pytest.raises(LoaderError):
        boot(tracker)
    assert answered(tracker) is None


def test_a_missing_base_says_what_installs_one(tracker: FakeKernel) -> None:
    Path(tracker.store.spec_path).unlink()
    with pytest.raises(InvalidSpec, match="is missing: install the object first"):
        boot(tracker)


# --- a rollout -----------------------------------------------------------------------------------


def test_a_rollout_keeps_the_override(tracker: FakeKernel) -> None:
    want(tracker)
    boot(tracker)
    larger = replace(BASE, max_entries=8192)
    result = roll_out(tracker, larger)
    assert tracker.running == replace(larger, udpv6_enabled=False)
    assert tracker.store.read_spec() == larger
    assert result.effective.owners["udpv6_enabled"] == PATH
    assert answered(tracker) == ("applied", tracker.running.fingerprint, None)


def test_a_rollout_is_not_stopped_by_a_refused_request(tracker: FakeKernel) -> None:
    """Taking a key away ends its override."""
    tracker.running = OVERRIDDEN
    want(tracker)
    remote.write_allowed(tracker.store, [])
    result = roll_out(tracker)
    assert tracker.running == BASE
    assert "may not override" in str(result.effective.reason)
    found = answered(tracker)
    assert found is not None
    assert found[0] == "failed"


def test_a_rollout_is_not_stopped_by_a_request_that_does_not_load(tracker: FakeKernel) -> None:
    tracker.refused = {OVERRIDDEN}
    want(tracker)
    result = roll_out(tracker)
    assert tracker.running == BASE
    assert result.effective.reason == "out of memory"
    assert answered(tracker) == ("failed", OVERRIDDEN.fingerprint, "out of memory")


def test_a_request_that_has_failed_is_not_tried_by_the_next_rollout(tracker: FakeKernel) -> None:
    tracker.refused = {OVERRIDDEN}
    want(tracker)
    roll_out(tracker)
    tracker.loads.clear()
    chosen = effective_load.choose(tracker.store, BASE)
    assert (chosen.spec, chosen.reason) == (BASE, "out of memory")
    roll_out(tracker)
    assert set(tracker.loads) == {BASE}
    assert answered(tracker) == ("failed", OVERRIDDEN.fingerprint, "out of memory")


def test_another_base_gives_a_failed_request_another_try(tracker: FakeKernel) -> None:
    tracker.refused = {OVERRIDDEN}
    want(tracker)
    roll_out(tracker)
    smaller = replace(BASE, closed_entries=1024)
    roll_out(tracker, smaller)
    assert tracker.running == replace(smaller, udpv6_enabled=False)


def test_a_base_that_does_not_load_stops_a_rollout(tracker: FakeKernel) -> None:
    tracker.running = BASE
    larger = replace(BASE, max_entries=8192)
    tracker.refused = {larger, replace(larger, udpv6_enabled=False)}
    want(tracker)
    with pytest.raises(LoaderError):
        roll_out(tracker, larger)
    assert tracker.running == BASE
    assert tracker.store.read_spec() == BASE


# --- two at a time -------------------------------------------------------------------------------


def test_a_request_that_comes_during_a_rollout_is_in_force_after_it(tracker: FakeKernel) -> None:
    done: list[int] = []

    def agent_writes() -> None:
        if not done:
            done.append(1)
            want(tracker)

    tracker.while_loading = agent_writes
    roll_out(tracker)
    assert tracker.running == OVERRIDDEN
    assert answered(tracker) == APPLIED


def test_a_base_that_comes_during_a_request_is_in_force_after_it(tracker: FakeKernel) -> None:
    larger = replace(BASE, max_entries=8192)
    tracker.while_loading = lambda: tracker.store.write_spec(larger)
    want(tracker)
    boot(tracker)
    assert tracker.running == replace(larger, udpv6_enabled=False)


def test_a_good_request_after_a_refused_one_is_not_missed(
    tracker: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.running = BASE
    want(tracker, b"nonsense")
    real = remote.write_answer

    def answer_then_agent_writes(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        want(tracker)

    monkeypatch.setattr(remote, "write_answer", answer_then_agent_writes)
    boot(tracker)
    assert tracker.running == OVERRIDDEN


def test_an_agent_that_never_stops_writing_does_not_hold_a_rollout_up(
    tracker: FakeKernel,
) -> None:
    sizes = iter(range(2000, 3000))

    def agent_writes() -> None:
        want(tracker, content({"max_entries": next(sizes)}, {"max_entries": PATH}))

    tracker.while_loading = agent_writes
    roll_out(tracker)
    assert len(tracker.loads) == 6
