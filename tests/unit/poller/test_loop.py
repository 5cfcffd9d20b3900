# SPDX-License-Identifier: GPL-3.0-or-later
"""When the loop polls, what it says of it, and when it ends; on a clock that tests turn."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest
from btfleet.poller.backoff import CAP, Backoff, wanted_interval
from btfleet.poller.errors import ServiceError, SwitchedOff
from btfleet.poller.log_limit import LogLimit
from btfleet.poller.loop import TICK, Pause, PollLoop, Wishes
from hypothesis import given
from hypothesis import strategies as st


def longest(_low: float, high: float) -> float:
    return high


def shortest(low: float, _high: float) -> float:
    return low


class Script(Pause):
    """Plays poll results (True, False, Wishes or an error), then stops. Waits pass at once."""

    def __init__(self, *results: object, interval: float = 5.0) -> None:
        super().__init__()
        self.time = 1000.0
        self.polled_at: list[float] = []
        self.ticks = 0
        self.heard: list[bool] = []
        self.interval = interval
        self.before_wait: Callable[[], None] = lambda: None
        self._results = list(results)
        self.loop = PollLoop(
            self._poll,
            lambda: self.interval,
            pause=self,
            tick=self._tick,
            on_state_change=self.heard.append,
            clock=lambda: self.time,
            now=lambda: self.time,
            uniform=longest,
        )

    def wait(self, seconds: float) -> None:
        assert 0 < seconds <= TICK
        self.before_wait()
        self.time += seconds
        if not self._results:
            self.stop()

    def run(self) -> list[float]:
        """The times between polls."""
        self.loop.run()
        return [b - a for a, b in zip(self.polled_at, self.polled_at[1:])]

    def _tick(self) -> None:
        self.ticks += 1
        if self.ticks > 5000:
            self.stop()

    def _poll(self) -> Wishes:
        self.polled_at.append(self.time)
        result = self._results.pop(0)
        if isinstance(result, Exception):
            raise result
        if not result:
            raise ServiceError("the service is not to be reached")
        return result if isinstance(result, Wishes) else Wishes()


def test_before_the_first_success_it_is_tried_each_second_and_nothing_grows() -> None:
    script = Script(*[False] * 50, True)
    assert script.run() == [1.0] * 50
    assert script.loop._backoff.failures == 0
    assert script.heard == []


def test_after_that_failures_make_waits_longer_up_to_the_cap() -> None:
    waits = Script(True, *[False] * 8, True).run()
    assert waits == [5, 15, 25, 45, 85, 95, 95, 95, 95]


def test_each_success_takes_two_failures_back() -> None:
    waits = Script(True, *[False] * 9, True, True, True, True, True).run()
    assert waits[-4:] == [45, 15, 5, 5]


def test_a_service_that_fails_every_other_time_is_not_given_up() -> None:
    waits = Script(True, *[False, True] * 10, True).run()
    assert set(waits) == {5, 15}


@given(st.floats(1, 3600), st.lists(st.booleans(), max_size=60), st.randoms())
def test_waits_are_always_within_bounds(
    interval: float, results: list[bool], chance: random.Random
) -> None:
    backoff = Backoff().success()
    for is_good in results:
        backoff = backoff.success() if is_good else backoff.failed(interval)
        wait = backoff.wait(interval, 0, chance.uniform)
        assert 0.9 * interval <= wait <= interval + CAP
    for _number in range(60):
        backoff = backoff.success()
    assert backoff.failures == 0


def test_waits_of_a_fleet_drift_apart() -> None:
    chance = random.Random(1)  # noqa: S311
    waits = {Backoff().success().wait(5.0, 0, chance.uniform) for _number in range(100)}
    assert len(waits) == 100
    assert all(4.5 <= wait <= 5.0 for wait in waits)


def test_retry_after_is_waited_for_within_bounds_and_not_all_at_once() -> None:
    script = Script(Wishes(retry_after=100), Wishes(retry_after=10**9), True, True)
    assert script.run() == [pytest.approx(110), pytest.approx(3960), 5]
    assert Backoff().success().wait(5, 100, shortest) == 100


def test_a_suggested_interval_only_makes_polls_rarer() -> None:
    assert Script(Wishes(60), Wishes(1), Wishes(0), True).run() == [60, 5, 5]
    assert wanted_interval(5, 10**9) == 3600
    assert wanted_interval(3600, 5) == 3600


def test_a_shorter_interval_cuts_the_wait_short() -> None:
    script = Script(True, True, interval=3600)

    def decide() -> None:
        if script.time > 1500:
            script.interval = 5

    script.before_wait = decide
    (wait,) = script.run()
    assert 500 < wait < 530


def test_ticks_go_on_during_a_long_wait() -> None:
    script = Script(True, True, interval=3600)
    script.run()
    assert script.ticks >= 360


def test_unimplemented_ends_polls_but_not_ticks() -> None:
    for results in ([SwitchedOff("off"), True], [True, SwitchedOff("off"), True]):
        script = Script(*results)
        script.run()
        assert len(script.polled_at) == len(results) - 1
        assert script.loop.stats.ended
        assert script.ticks > 1000


def test_on_state_change_hears_every_failure_and_the_first_success_after_it() -> None:
    script = Script(False, True, True, False, False, True, True, False)
    script.run()
    assert script.heard == [False, False, True, False]


def test_what_became_of_polls_is_counted_by_kind() -> None:
    script = Script(False, True, SwitchedOff("off"))
    script.run()
    stats = script.loop.stats
    assert (stats.polls, stats.failed) == (3, 2)
    assert stats.failures == {"service": 1, "switched_off": 1}
    assert stats.last_success_at > 0


def test_the_log_is_quiet_before_the_first_success_and_limited_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "btfleet"):
        Script(*[False] * 60, True).run()
    levels = [record.levelno for record in caplog.records]
    assert max(levels) == logging.INFO
    assert 5 <= len(levels) <= 7
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "btfleet"):
        Script(True, *[False] * 3, True).run()
    assert [record.levelno for record in caplog.records if "reached" in record.message] == [
        logging.WARNING
    ] * 3


def test_lines_that_were_left_out_are_counted() -> None:
    time = [0.0]
    limit = LogLimit(per_minute=2, clock=lambda: time[0])
    assert [limit.take("x") for _number in range(5)] == ["x", "x", None, None, None]
    time[0] = 61.0
    assert limit.take("x") == "x (3 such lines were left out before)"
    assert limit.take("x") == "x"


def test_a_pause_is_ended_by_a_wake_or_a_stop_that_came_before() -> None:
    pause = Pause()
    pause.wake()
    pause.wait(3600)
    pause.stop()
    pause.wait(3600)
    assert pause.stopped
