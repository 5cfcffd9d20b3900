# SPDX-License-Identifier: GPL-3.0-or-later
"""When a tracker is reconciled, and what is kept of it. No kernel is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from btfleet._kernel.loader import reconciled
from btfleet._kernel.loader.reconciled import Result, Signs

RECORD = {
    "programs": {"insert": 5, "delete": 6},
    "maps": {"conntrack_live": 7},
    "loaded_at": 1000,
    "last_pass": 4,
}
LOAD = reconciled.load_of(RECORD)
NEW = reconciled.new(RECORD)
NONE_MISSED = {"insert_missed": 0, "delete_missed": 0}


def test_after_a_load_there_is_no_need() -> None:
    assert NEW.last_pass == 4
    assert reconciled.why_needed(NEW, Signs(NONE_MISSED), 2000) is None
    assert reconciled.why_needed(NEW, Signs(NONE_MISSED, 17), 2000) is None


def test_a_miss_is_a_reason_once() -> None:
    signs = Signs({"insert_missed": 2, "delete_missed": 5})
    assert reconciled.why_needed(NEW, signs, 1001) == "delete_missed 5, insert_missed 2"
    after = reconciled.following(NEW, signs, "delete_missed 5", NEW._replace(at=1002, removed=5))
    assert reconciled.why_needed(after, signs, 1100) is None
    more = Signs({"insert_missed": 2, "delete_missed": 6})
    assert reconciled.why_needed(after, more, 1100) == "delete_missed 1"


def test_misses_of_former_programs_count_for_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "reconciled.json")
    reconciled.write(NEW._replace(missed={"insert_missed": 100}), path)
    assert reconciled.read(RECORD, path).missed == {"insert_missed": 100}
    other = {**RECORD, "programs": {"insert": 8, "delete": 9}}
    assert reconciled.read(other, path) == reconciled.new(other)


def test_reconciling_takes_no_more_than_its_share_of_the_time() -> None:
    signs = Signs({"insert_missed": 1})
    slow = NEW._replace(at=1000, seconds=10.0)
    assert reconciled.why_needed(slow, signs, 1199) is None
    assert reconciled.why_needed(slow, signs, 1200) is not None


def test_one_that_failed_is_tried_again_after_a_minute() -> None:
    failed = NEW._replace(at=1000, error="no")
    assert reconciled.why_needed(failed, Signs(NONE_MISSED), 1059) is None
    assert reconciled.why_needed(failed, Signs(NONE_MISSED), 1060) == "the last one failed"


@pytest.mark.parametrize(("now", "why"), [(13, "3 flows came unseen"), (9, "1 flows went unseen")])
def test_flows_that_do_not_add_up_are_a_reason(now: int, why: str) -> None:
    last = NEW._replace(surplus=10)
    assert reconciled.why_needed(last, Signs(NONE_MISSED, 10), 2000) is None
    assert reconciled.why_needed(last, Signs(NONE_MISSED, now), 2000) == why


def test_where_that_was_for_nothing_it_is_done_more_and_more_seldom() -> None:
    last, signs = NEW._replace(surplus=10), Signs(NONE_MISSED, 11)
    for pause in (20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600):
        assert reconciled.why_needed(last, signs, last.at + pause - 1) is None
        why = reconciled.why_needed(last, signs, last.at + pause)
        assert why is not None
        last = reconciled.following(last, signs, why, last._replace(at=last.at + pause))
        signs = Signs(NONE_MISSED, (signs.surplus or 0) + 1)
    found = reconciled.following(last, signs, "1 flows came unseen", last._replace(added=2))
    assert found.fruitless == 0


def test_flows_that_are_being_made_are_looked_past() -> None:
    assert reconciled.nearest([15, 12, 10, 11], 10) == 10
    assert reconciled.nearest([15, 13, 14], 10) == 13
    assert reconciled.nearest([5, 8, 7], 10) == 8


def test_what_was_found_adds_up_over_a_load() -> None:
    first = reconciled.following(NEW, Signs({}), "a", NEW._replace(added=3, removed=1))
    second = reconciled.following(first, Signs({}), "b", first._replace(added=2, removed=0))
    assert (second.runs, second.added, second.added_ever, second.removed_ever) == (2, 2, 5, 1)


@pytest.mark.parametrize(
    ("tier", "release", "counted"),
    [
        ("core/fentry", "5.11.0", False),
        ("core/fentry", "5.12.0", True),
        ("core/fexit", "6.1.0-57", True),
        ("core/kprobe", "6.1.0-57", False),
        ("core/kprobe", "6.6.9", False),
        ("core/kprobe", "6.7.0", True),
        ("runtime", "6.12.1", True),
        ("core/kprobe", "?", False),
    ],
)
def test_kernels_that_count_what_they_pass_over(tier: str, release: str, counted: bool) -> None:
    assert reconciled.counts_misses(tier, release) is counted


@pytest.mark.parametrize("content", ["", "{", "[]", '{"load": "x"}', '{"at": 1}', '{"other": 1}'])
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "reconciled.json"
    path.write_text(content)
    assert reconciled.read(RECORD, str(path)) == NEW


def test_the_file_is_for_everybody_to_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "reconciled.json"
    result = NEW._replace(added=1, missed=NONE_MISSED)
    reconciled.write(result, str(path))
    assert reconciled.read(RECORD, str(path)) == result
    assert path.stat().st_mode & 0o777 == 0o644
    reconciled.forget(str(path))
    reconciled.forget(str(path))
    assert not path.exists()


def test_people_see_what_was_found_and_not_what_the_next_decision_needs() -> None:
    shown = reconciled.to_dict(Result(LOAD, 1, added=2))
    assert json.loads(json.dumps(shown))["added"] == 2
    assert not {"load", "last_pass", "missed", "surplus", "fruitless"} & set(shown)
