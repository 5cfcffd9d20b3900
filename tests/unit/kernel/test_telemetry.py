# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads are counted by what came of them, and a damaged count never stops a load."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from btfleet._kernel import errors, os_release
from btfleet._kernel.loader import telemetry
from btfleet._kernel.store import Store, write_atomically


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "spec.json"), str(tmp_path / "var"))


def test_equal_loads_are_one_row_and_others_another(store: Store) -> None:
    for result in ("default", "verifier", "default", "default"):
        telemetry.count(store, "conntrack", result)
    assert [(row["result"], row["count"]) for row in telemetry.read(store)] == [
        ("default", 3),
        ("verifier", 1),
    ]


def test_the_last_time_is_kept() -> None:
    rows: list[dict[str, object]] = []
    tags = dict.fromkeys(telemetry.TAGS, "x")
    telemetry.add(rows, tags, 100)
    telemetry.add(rows, tags, 200)
    assert rows == [{**tags, "count": 2, "last": 200}]


@pytest.mark.parametrize("tag", telemetry.TAGS)
def test_every_tag_makes_a_row_of_its_own(tag: str) -> None:
    rows: list[dict[str, object]] = []
    tags = dict.fromkeys(telemetry.TAGS, "x")
    telemetry.add(rows, tags, 100)
    telemetry.add(rows, {**tags, tag: "y"}, 100)
    assert [row["count"] for row in rows] == [1, 1]


def test_the_tags_of_this_machine() -> None:
    tags = telemetry.tags("conntrack", "default")
    assert tuple(tags) == telemetry.TAGS
    assert (tags["kernel"], tags["arch"]) == (platform.release(), platform.machine())
    release = platform.freedesktop_os_release()
    assert tags["platform"] == release["ID"]
    assert tags["platform_version"] == release.get("VERSION_ID", "unknown")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('ID=debian\nVERSION_ID="12"\n', {"ID": "debian", "VERSION_ID": "12"}),
        ("ID='alpine'\n# ID=no\n\nnonsense\n", {"ID": "alpine"}),
        ("NAME=a=b\n", {"NAME": "a=b"}),
        ("", {}),
    ],
)
def test_os_release_fields(text: str, fields: dict[str, str]) -> None:
    assert os_release.parse(text) == fields


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"5", b"null", b'"text"', b"{}", b"[5, null]", b"\xff\xfe"),
        *(b'[{"result": "default"}]', b'[{"count": "many"}]', b'[{"count": null}]', b"[" * 100000),
    ],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(store: Store, content: bytes) -> None:
    write_atomically(store.results_path, content)
    assert telemetry.read(store) == []
    telemetry.count(store, "conntrack", "default")
    assert [row["count"] for row in telemetry.read(store)] == [1]
    assert json.loads(Path(store.results_path).read_text())


def test_good_rows_beside_damaged_ones_are_kept(store: Store) -> None:
    telemetry.count(store, "conntrack", "default")
    (row,) = telemetry.read(store)
    write_atomically(store.results_path, json.dumps([5, row, {"count": []}]).encode())
    telemetry.count(store, "conntrack", "default")
    assert [row["count"] for row in telemetry.read(store)] == [2]


def test_a_disk_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    telemetry.count(Store("/none", str(tmp_path / "file" / "var")), "conntrack", "default")


def test_the_errors_results_are_the_failures() -> None:
    kinds = {kind.result for kind in errors.TrackerError.__subclasses__() if kind.result}
    assert kinds == set(telemetry.FAILURES)
    assert not kinds & set(telemetry.SUCCESSES)
