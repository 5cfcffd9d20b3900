# SPDX-License-Identifier: GPL-3.0-or-later
"""From configs to what the loader is asked for, and what is said of it; the loader's part is real
where it needs no kernel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from btfleet._config import paths, remote
from btfleet._config.remote import Answer
from btfleet._kernel.errors import LoaderError
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store
from btfleet.poller import wanted
from btfleet.poller.agent_product import AgentProduct
from btfleet.poller.conntrack_product import ConntrackProduct
from btfleet.poller.settings import Settings
from btfleet.poller.states import APPLIED, APPLYING, FAILED, RECEIVED, StateBook
from btfleet.poller.verify import Config
from btfleet.poller.wanted import ANSWER_TIMEOUT, RETRY, Asked, judge, make_plan
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.poller.director import CALM, NO_UDP6, content

BASE = Spec("a" * 64)
OVER = Spec("a" * 64, udpv6_enabled=False)
ALLOWED = ("CONNTRACK.udpv6_enabled", "CONNTRACK.max_entries")
GREATER = "btfleet/1/CONNTRACK/zone/udp6"


def config(path: str, version: int = 1, **settings: object) -> Config:
    return Config(paths.parse(path), version, 0, content(**settings), {})


# --- plan ---------------------------------------------------------------------------------------


def test_a_plan_is_the_base_with_what_is_allowed_over_it() -> None:
    plan = make_plan(BASE, "", {NO_UDP6: content(udpv6_enabled=False)}, ALLOWED)
    assert plan.spec == OVER
    assert plan.wanted.settings == {"udpv6_enabled": False}
    assert plan.wanted.owners == {"udpv6_enabled": NO_UDP6}
    assert plan.wanted.request == remote.request_of({"udpv6_enabled": False}, plan.wanted.owners)


def test_of_two_configs_the_greater_path_wins() -> None:
    contents = {
        NO_UDP6: content(udpv6_enabled=False, max_entries=4096),
        GREATER: content(udpv6_enabled=True),
    }
    plan = make_plan(BASE, "", contents, ALLOWED)
    assert plan.wanted.settings == {"udpv6_enabled": True, "max_entries": 4096}
    assert plan.wanted.owners == {"udpv6_enabled": GREATER, "max_entries": NO_UDP6}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (content(tcpv6_enabled=False), "remote config may not override"),
        (content(udpv6_enabled=1), "needed: true or false"),
        (content(later=1), "unknown setting"),
        (b'{"udpv6_enabled":true,"udpv6_enabled":false}', "stands twice"),
        (b"\xff", "not UTF-8"),
        (b"[]", "needed: an object"),
    ],
)
def test_a_config_that_is_wrong_has_no_part_and_the_others_do(raw: bytes, reason: str) -> None:
    plan = make_plan(BASE, "", {NO_UDP6: raw, GREATER: content(max_entries=4096)}, ALLOWED)
    assert set(plan.refused) == {NO_UDP6}
    assert reason in plan.refused[NO_UDP6]
    assert plan.wanted.settings == {"max_entries": 4096}


def test_without_a_base_every_config_says_why() -> None:
    plan = make_plan(None, "no spec", {NO_UDP6: content(udpv6_enabled=False)}, ALLOWED)
    assert (plan.spec, dict(plan.refused)) == (None, {NO_UDP6: "no spec"})


@given(st.dictionaries(st.sampled_from([NO_UDP6, GREATER]), st.binary(max_size=100)))
def test_random_contents_are_refused_each_with_a_line(contents: dict[str, bytes]) -> None:
    plan = make_plan(BASE, "", contents, ALLOWED)
    assert set(plan.refused) == set(contents)
    assert all(reason and "\n" not in reason for reason in plan.refused.values())
    assert plan.spec == BASE


# --- judgement ----------------------------------------------------------------------------------

PLAN = make_plan(BASE, "", {NO_UDP6: content(udpv6_enabled=False)}, ALLOWED)
REQUEST = PLAN.wanted.request
YES = Answer(REQUEST, "applied", OVER.fingerprint, None, 10)
NO = Answer(REQUEST, "failed", OVER.fingerprint, "no memory", 10)
REFUSED = Answer(REQUEST, "failed", None, "not allowed", 10)
ASKED = Asked(100.0)


@pytest.mark.parametrize(
    ("asked", "answer", "loaded", "now", "phase", "reason"),
    [
        (ASKED, None, BASE, 101, APPLYING, ""),
        (ASKED, None, OVER, 101, APPLIED, ""),
        (None, None, OVER, 101, APPLIED, ""),
        (ASKED, NO, OVER, 101, APPLIED, ""),
        (ASKED, YES, BASE, 101, APPLYING, ""),
        (ASKED, NO, BASE, 101, FAILED, "no memory"),
        (ASKED, REFUSED, BASE, 101, FAILED, "not allowed"),
        (ASKED._replace(before=NO), NO, BASE, 101, APPLYING, ""),
        (ASKED._replace(before=NO), NO._replace(at=11), BASE, 101, FAILED, "no memory"),
        (ASKED._replace(before=NO), NO, BASE, 100 + ANSWER_TIMEOUT, FAILED, "no memory"),
        (ASKED, NO._replace(request="f" * 64), BASE, 101, APPLYING, ""),
        (ASKED, NO._replace(fingerprint="f" * 64), BASE, 101, APPLYING, ""),
        (ASKED, None, BASE, 100 + ANSWER_TIMEOUT, FAILED, "has not answered"),
        (ASKED, YES, BASE, 100 + ANSWER_TIMEOUT, FAILED, "the kernel has fingerprint"),
        (ASKED, None, None, 100 + ANSWER_TIMEOUT, FAILED, "no tracker is loaded"),
        (Asked(200.0, times=2), None, BASE, 201, FAILED, "has not answered"),
    ],
)
def test_judgement(
    asked: Asked | None,
    answer: Answer | None,
    loaded: Spec | None,
    now: float,
    phase: int,
    reason: str,
) -> None:
    found = judge(PLAN, asked, answer, loaded.fingerprint if loaded else None, now)
    assert found.phase == phase
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)
    assert found.fingerprint == (OVER.fingerprint if phase == APPLIED else "")


def test_what_is_not_in_force_is_asked_for_again_but_not_all_the_time() -> None:
    base, over = BASE.fingerprint, OVER.fingerprint
    has_to_ask = wanted.has_to_ask
    assert has_to_ask(PLAN, None, None, base, 0)
    assert has_to_ask(PLAN, PLAN.wanted, None, base, 0)
    assert not has_to_ask(PLAN, PLAN.wanted, None, over, 0)
    assert not has_to_ask(PLAN, PLAN.wanted, ASKED, base, 101)
    assert has_to_ask(PLAN, PLAN.wanted, ASKED, base, 100 + ANSWER_TIMEOUT)
    assert not has_to_ask(PLAN, PLAN.wanted, Asked(100.0, 2), base, 100 + ANSWER_TIMEOUT)
    assert has_to_ask(PLAN, PLAN.wanted, Asked(100.0, 2), base, 100 + RETRY)


def test_an_unloaded_tracker_is_not_loaded_by_asking_again() -> None:
    assert not wanted.has_to_ask(PLAN, PLAN.wanted, None, None, 0)


def test_a_host_that_never_had_overrides_gets_no_file() -> None:
    nothing = make_plan(BASE, "", {}, ALLOWED)
    assert not wanted.has_to_ask(nothing, None, None, BASE.fingerprint, 0)
    assert wanted.has_to_ask(nothing, PLAN.wanted, None, OVER.fingerprint, 0)


# --- the handler --------------------------------------------------------------------------------


@dataclass
class Loader:
    """Root's side without a kernel: takes `wanted.json` as the loader does, and has a record."""

    store: Store
    loaded: Spec | None = BASE
    reason: str = ""
    time: float = 100.0
    readable: bool = True
    answers: int = 0
    seen: list[str] = field(default_factory=list)

    def record(self) -> dict[str, object] | None:
        if not self.readable:
            raise LoaderError("no permission")
        if self.loaded is None:
            return None
        return {"fingerprint": self.loaded.fingerprint, "spec": self.loaded.to_dict()}

    def run(self) -> None:
        base = self.store.read_spec()
        assert base is not None
        effective = remote.effective(self.store, base)
        self.answers += 1
        state, reason = "applied", None
        if self.reason or effective.reason:
            state, reason = "failed", self.reason or effective.reason
        else:
            self.loaded = effective.spec
        fingerprint = effective.spec.fingerprint
        remote.write_answer(
            self.store, Answer(effective.request, state, fingerprint, reason, self.answers)
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(
        spec_path=str(tmp_path / "etc/spec.json"),
        wanted_path=str(tmp_path / "state/wanted.json"),
        applied_path=str(tmp_path / "run/applied.json"),
    )
    made.write_spec(BASE)
    allow(made, *ALLOWED, "AGENT.log_level", "AGENT.metrics")
    return made


def allow(store: Store, *keys: str) -> None:
    remote.write_allowed(store, keys)


@dataclass
class Bench:
    """A handler with its configs, and the loader that it asks."""

    store: Store
    loader: Loader
    book: StateBook = field(default_factory=StateBook)
    saved: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.product = ConntrackProduct(
            self.store, self.book, self.loader.record, self._save, lambda: self.loader.time
        )

    def _save(self) -> None:
        self.saved += 1

    def give(self, *configs: Config) -> None:
        by_path = {str(one.path): one for one in configs}
        self.book.set_configs(by_path)
        self.product.update(by_path)
        self.product.watch()

    def state(self, path: str = NO_UDP6) -> tuple[int, str]:
        return {each.path: (each.phase, each.reason) for each in self.book.all()}[path]

    def wanted(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(Path(self.store.wanted_path).read_text())
        return data


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store, Loader(store))


def test_a_config_is_applied_when_the_kernel_says_so_and_not_before(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    assert bench.state() == (APPLYING, "")
    assert bench.product.interval < 1
    loaded = bench.loader.loaded
    bench.loader.run()
    new, bench.loader.loaded = bench.loader.loaded, loaded
    bench.product.watch()
    assert bench.state() == (APPLYING, "")  # the loader says so, the kernel does not
    bench.loader.loaded = new
    bench.product.watch()
    assert bench.state() == (APPLIED, "")
    (state,) = bench.book.all()
    assert state.fingerprint == OVER.fingerprint
    assert bench.product.effective["CONNTRACK.udpv6_enabled"] == (False, NO_UDP6)
    assert bench.product.effective["CONNTRACK.tcpv6_enabled"] == (True, "base")
    assert bench.product.interval > 1
    assert bench.saved == 2


def test_what_is_written_is_what_the_loader_takes(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    assert remote.read_wanted(bench.store) == PLAN.wanted
    assert Path(bench.store.wanted_path).stat().st_mode & 0o777 == 0o640


def test_a_withdrawn_config_brings_the_base_back(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.run()
    bench.give()
    assert bench.wanted()["settings"] == {}
    bench.loader.run()
    bench.product.watch()
    assert bench.loader.loaded == BASE
    assert bench.product.effective["CONNTRACK.udpv6_enabled"] == (True, "base")


def test_a_load_that_fails_is_reported_with_its_reason_and_tried_again(bench: Bench) -> None:
    bench.loader.reason = "cannot allocate memory"
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.run()
    bench.product.watch()
    assert bench.state() == (FAILED, "cannot allocate memory")
    assert bench.product.effective["CONNTRACK.udpv6_enabled"] == (True, "base")
    written = Path(bench.store.wanted_path).stat().st_ino
    bench.loader.time += RETRY
    bench.product.watch()
    assert Path(bench.store.wanted_path).stat().st_ino != written
    bench.loader.reason = ""
    bench.loader.run()
    bench.product.watch()
    assert bench.state() == (APPLIED, "")


def test_no_answer_is_a_failure_that_a_late_answer_ends(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.time += ANSWER_TIMEOUT
    bench.product.watch()
    phase, reason = bench.state()
    assert (phase, "has not answered" in reason) == (FAILED, True)
    bench.loader.run()
    bench.product.watch()
    assert bench.state() == (APPLIED, "")


def test_a_config_that_may_not_be_is_refused_and_allowed_later(bench: Bench) -> None:
    allow(bench.store)
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    phase, reason = bench.state()
    assert (phase, "may not override" in reason) == (FAILED, True)
    assert not Path(bench.store.wanted_path).exists()
    allow(bench.store, *ALLOWED)
    bench.product.watch()
    bench.loader.run()
    bench.product.watch()
    assert bench.state() == (APPLIED, "")


def test_a_new_base_that_a_rollout_loaded_is_in_force_without_asking(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.run()
    bench.product.watch()
    written = Path(bench.store.wanted_path).stat().st_ino
    bigger = Spec("a" * 64, max_entries=4096)
    bench.store.write_spec(bigger)
    bench.loader.loaded = Spec("a" * 64, max_entries=4096, udpv6_enabled=False)
    bench.product.watch()
    assert bench.state() == (APPLIED, "")
    assert Path(bench.store.wanted_path).stat().st_ino == written
    assert bench.product.effective["CONNTRACK.max_entries"] == (4096, "base")


@pytest.mark.parametrize("damage", ["spec", "remote", "record"])
def test_what_cannot_be_read_fails_with_a_line_and_heals(bench: Bench, damage: str) -> None:
    path = {"spec": bench.store.spec_path, "remote": bench.store.remote_path}.get(damage)
    good = Path(path).read_text() if path else ""
    if path:
        Path(path).write_text("{")
    bench.loader.readable = damage != "record"
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    phase, reason = bench.state()
    assert phase == FAILED
    assert reason
    bench.loader.readable = True
    if path:
        Path(path).write_text(good)
    bench.product.watch()
    assert bench.state() == (APPLYING, "")


def test_a_state_folder_without_room_fails_with_a_line_and_heals(bench: Bench) -> None:
    folder = Path(bench.store.wanted_path).parent
    folder.write_text("not a folder")
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    phase, reason = bench.state()
    assert (phase, reason.startswith("cannot write ")) == (FAILED, True)
    folder.unlink()
    bench.product.watch()
    assert bench.state() == (APPLYING, "")


def test_a_damaged_wanted_file_is_written_again(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.run()
    Path(bench.store.wanted_path).write_text("{")
    bench.product.watch()
    assert bench.wanted()["settings"] == {"udpv6_enabled": False}


def test_after_a_restart_what_is_in_force_stays_applied_since_the_same_time(bench: Bench) -> None:
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    bench.loader.run()
    bench.product.watch()
    before = bench.book.all()
    bench.book = StateBook(before, lambda: 9e9)
    bench.start()
    written = Path(bench.store.wanted_path).stat().st_ino
    bench.give(config(NO_UDP6, udpv6_enabled=False))
    assert bench.book.all() == before
    assert Path(bench.store.wanted_path).stat().st_ino == written


def test_before_any_configs_are_known_values_are_told_but_nothing_is_asked(bench: Bench) -> None:
    bench.product.watch()
    assert bench.product.effective["CONNTRACK.udpv6_enabled"] == (True, "base")
    assert not Path(bench.store.wanted_path).exists()


def test_a_value_that_nobody_decided_has_no_owner(bench: Bench) -> None:
    bench.loader.loaded = Spec("a" * 64, max_entries=2048)
    bench.product.watch()
    assert bench.product.effective["CONNTRACK.max_entries"] == (2048, "")


# --- AGENT --------------------------------------------------------------------------------------


class Setters(dict):  # type: ignore[type-arg]
    """Records what was set; `broken` cannot be."""

    def __init__(self) -> None:
        self.put: dict[str, object] = {}
        self.broken: set[str] = set()
        keys = ("poll_interval_seconds", "log_level", "metrics")
        super().__init__({key: self._setter(key) for key in keys})

    def _setter(self, key: str) -> Any:
        def set_value(value: object) -> None:
            if key in self.broken:
                raise OSError("address in use")
            self.put[key] = value

        return set_value


def test_agent_settings_follow_configs_and_come_back(store: Store) -> None:
    book, setters = StateBook(), Setters()
    product = AgentProduct(Settings("gw1", "s:1"), store, book, setters)
    product.start()
    base = {"poll_interval_seconds": 5, "log_level": "info", "metrics": True}
    assert setters.put == base
    configs = {CALM: config(CALM, log_level="debug", metrics=False)}
    book.set_configs(configs)
    product.update(configs)
    assert setters.put == {**base, "log_level": "debug", "metrics": False}
    assert [state.phase for state in book.all()] == [APPLIED]
    assert product.effective["AGENT.log_level"] == ("debug", CALM)
    product.update({})
    assert setters.put == base
    assert product.effective["AGENT.log_level"] == ("info", "base")


def test_an_agent_setting_that_cannot_be_fails_and_is_tried_again(store: Store) -> None:
    book, setters = StateBook(), Setters()
    product = AgentProduct(Settings("gw1", "s:1", metrics=False), store, book, setters)
    product.start()
    configs = {CALM: config(CALM, metrics=True)}
    book.set_configs(configs)
    setters.broken = {"metrics"}
    product.update(configs)
    (state,) = book.all()
    assert (state.phase, "address in use" in state.reason) == (FAILED, True)
    assert product.effective["AGENT.metrics"] == (False, "base")
    setters.broken = set()
    product.watch()
    assert [state.phase for state in book.all()] == [APPLIED]


# --- states -------------------------------------------------------------------------------------


def test_a_word_on_a_config_that_was_replaced_meanwhile_is_ignored() -> None:
    book = StateBook()
    old, new = config(NO_UDP6, 1, udpv6_enabled=False), config(NO_UDP6, 2, udpv6_enabled=True)
    book.set_configs({NO_UDP6: old})
    book.set_configs({NO_UDP6: new})
    assert not book.report(old, APPLIED)
    assert [(state.version, state.phase) for state in book.all()] == [(2, RECEIVED)]
    book.set_configs({})
    assert not book.report(new, APPLIED)
    assert book.all() == []


def test_a_reason_is_one_bounded_line() -> None:
    book = StateBook()
    one = config(NO_UDP6)
    book.set_configs({NO_UDP6: one})
    book.report(one, FAILED, "a\nb " + "x" * 5000)
    (state,) = book.all()
    assert state.reason.startswith("a b x")
    assert len(state.reason) == 1000
