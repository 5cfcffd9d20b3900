# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports, read back by others than those who wrote them."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import (
    data_files,
    files,
    heard,
    html,
    markdown,
    report,
    table,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import Threshold

from tests.unit.compliance.fleet import (
    AWAY,
    BROKEN,
    FLEET,
    NASTY,
    STOPPED,
    answer,
    built,
)
from tests.unit.compliance.hosts import NOW

CONTROLS = len(answer()["controls"])
STATUSES = {
    **dict.fromkeys(("gw1", "gw4"), "compliant"),
    **dict.fromkeys(("gw2", "gw3"), "not_compliant"),
    "gw5": "unreachable",
    "gw6": "failed",
    "gw7": "failed",
}


# --- the report -----------------------------------------------------------------------------------


def test_every_host_is_a_row_whatever_became_of_it() -> None:
    found = {row["host"]: (row["status"], row["message"]) for row in built()["hosts"]}
    assert {name: status for name, (status, _message) in found.items()} == STATUSES
    assert found["gw5"][1] == AWAY["msg"]
    assert found["gw6"][1] == BROKEN["msg"]
    assert found["gw7"][1] == "it was not asked"


def test_the_worst_hosts_come_first() -> None:
    assert [row["host"] for row in built()["hosts"]] == [
        *("gw5", "gw6", "gw7", "gw2", "gw3", "gw1", "gw4")
    ]


def test_controls_are_counted_over_the_fleet() -> None:
    (one,) = [row for row in built()["controls"] if row["id"] == "files.unfinished"]
    assert one["counts"] == {"pass": 1, "fail": 2, "unknown": 0, "waived": 1, "not_applicable": 0}
    assert one["bad_hosts"] == ["gw2", "gw3"]


@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"controls": "none"},
        {"controls": None, "failed": False},
    ],
)
def test_an_answer_without_a_verdict_is_a_host_that_failed(junk: dict[str, Any]) -> None:
    assert report.host_row("gw1", junk)["status"] == "failed"


def test_what_a_host_makes_up_is_not_taken() -> None:
    given: list[Any] = [
        {"id": "made.up", "status": "pass"},
        {"id": "tracker.pins", "status": "excellent", "severity": "none", "title": "x"},
        "junk",
        None,
    ]
    row = report.host_row("gw1", {"controls": given, "seconds": "many"})
    found = {one["id"]: one for one in row["controls"]}
    assert "made.up" not in found
    assert (found["tracker.pins"]["status"], found["tracker.pins"]["severity"]) == (
        "unknown",
        "high",
    )
    assert found["tracker.loaded"]["status"] == "unknown"
    assert found["tracker.loaded"]["actual"] == "the host said nothing of it"
    assert row["seconds"] is None


def test_texts_become_one_printable_line() -> None:
    line = report.line("a\n b\x1b[31m\u202e\t" + "x" * 5000)
    assert line.isprintable()
    assert line.startswith("a b\\x1b[31m\\u202e ")
    assert len(line) < 1100
    assert report.line(None) == ""


# --- the threshold --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "percent", "bad", "passed"),
    [
        ("low", 0, 5, False),
        ("low", 72, 5, True),
        ("low", 71, 5, False),
        ("medium", 0, 3, False),  # files.unfinished is low; three gave no result
        ("high", 43, 3, True),
        (None, 0, 3, False),
        (None, 50, 3, True),
    ],
)
def test_the_fleet_passes_by_severity_and_share(
    severity: str | None, percent: float, bad: int, passed: bool
) -> None:
    summary = built(threshold=Threshold(severity, percent))["summary"]
    assert (summary["bad_hosts"], summary["passed"]) == (bad, passed)


def test_a_fleet_of_no_hosts_passes() -> None:
    found = report.build([], Threshold(), NOW)
    assert found["summary"]["passed"]
    assert "0 of 0 hosts" in report.verdict_line(found)
    html.render(found)


def test_unknown_counts_as_much_as_failed() -> None:
    rows = [report.host_row("gw1", {"controls": []})]
    assert not report.build(rows, Threshold("high"), NOW)["summary"]["passed"]


def test_the_verdict_is_one_line_that_blames() -> None:
    line = report.verdict_line(built())
    assert len(line.splitlines()) == 1
    assert line.startswith("5 of 7 hosts (71.4 %) have a control failed or unknown (severity low")
    assert "needed: at most 0 %: gw5 (unreachable); gw6 (failed); gw7 (failed)" in line
    many = {f"gw{number}": dict(AWAY) for number in range(20)}
    assert report.verdict_line(built(dict(many))).endswith("and 15 more")
    assert "have no result" in report.verdict_line(built(threshold=Threshold(None)))


# --- formats --------------------------------------------------------------------------------------


def test_json_has_it_all() -> None:
    whole = built(notes=("a note",))
    data = json.loads(data_files.as_json(whole))
    assert data["hosts"] == whole["hosts"]
    assert data["controls"] == whole["controls"]
    assert data["notes"] == ["a note"]
    assert data["bad"] == whole["bad"]
    assert data["schema"] == 1


def test_the_first_line_of_json_has_the_summary() -> None:
    whole = built()
    first = data_files.as_json(whole).splitlines()[0]
    assert data_files.summary_of_json(first) == whole["summary"]
    for junk in ("", "{", "[]", '{"summary": 1', "null"):
        with pytest.raises(ValueError, match=r"."):
            data_files.summary_of_json(junk)


def test_csv_has_a_line_for_each_result_and_each_lost_host() -> None:
    rows = list(csv.DictReader(io.StringIO(data_files.as_csv(built()))))
    assert len(rows) == 4 * CONTROLS + 3
    by_host = {name: [row for row in rows if row["host"] == name] for name in FLEET}
    assert {name: found[0]["host_status"] for name, found in by_host.items()} == STATUSES
    (lost,) = by_host["gw5"]
    assert (lost["status"], lost["actual"]) == ("unreachable", AWAY["msg"])
    (waived,) = [row for row in by_host["gw4"] if row["status"] == "waived"]
    assert (waived["waiver_owner"], waived["waiver_expires"]) == ("jane@example.org", "2030-12-31")


def test_no_cell_of_the_csv_is_a_formula() -> None:
    text = data_files.as_csv(built())
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert "'-1+1" in cells  # the reason of the waiver
    assert any(cell.startswith("'=cmd|") for cell in cells)


@pytest.mark.parametrize("start", ["=1", "+1", "-1", "@a", "\uff1d1"])
def test_a_formula_is_disarmed(start: str) -> None:
    assert data_files.harmless(start) == f"'{start}"
    assert data_files.harmless(f"a{start}") == f"a{start}"


def test_junit_counts_what_it_holds() -> None:
    root = ElementTree.fromstring(data_files.as_junit(built()))  # noqa: S314 our own
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == set(FLEET)
    for suite in suites.values():
        assert len(suite.findall("testcase")) == int(suite.get("tests", ""))
        assert len(suite.findall("testcase/failure")) == int(suite.get("failures", ""))
        assert len(suite.findall("testcase/error")) == int(suite.get("errors", ""))
        assert len(suite.findall("testcase/skipped")) == int(suite.get("skipped", ""))
    for name, path in (("failures", "failure"), ("errors", "error"), ("tests", "")):
        found = root.findall(f"testsuite/testcase/{path}".rstrip("/"))
        assert int(root.get(name, "")) == len(found)
    assert (suites["gw2"].get("failures"), suites["gw5"].get("errors")) == ("1", "1")
    error = suites["gw5"].find("testcase/error")
    assert error is not None
    assert error.get("message") == AWAY["msg"]
    failure = suites["gw2"].find("testcase/failure")
    assert failure is not None
    assert failure.text == "rm -r /etc/btfleet/.btfleet-x"
    skipped = suites["gw4"].find("testcase/skipped")
    assert skipped is not None
    assert "waiver until 2030-12-31 (jane@example.org" in (skipped.get("message") or "")


def cells_of(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_markdown_has_tables_that_hold_together() -> None:
    text = markdown.render(built(notes=("1 host <b> | x",)))
    blocks = [block.splitlines() for block in text.split("\n\n")]
    tables = [block for block in blocks if block[0].startswith("|")]
    assert len(tables) == 4  # hosts, controls, what is wrong, waivers
    for lines in tables:
        assert len({len(cells_of(line)) for line in lines}) == 1
    assert "<script" not in text
    assert "<b>" not in text
    assert "**failed**" in text
    assert "**passed**" in markdown.render(built(threshold=Threshold(None, 50)))


def test_the_table_fits_a_terminal_and_gives_it_no_orders() -> None:
    text = table.render(built(notes=("a note",)))
    assert all(line.isprintable() for line in text.splitlines())
    assert "files.unfinished" in text
    assert "rm -r /etc/btfleet/.btfleet-x" in text
    assert "note: a note" in text
    assert text.splitlines()[-1].startswith("FAILED: 5 of 7 hosts")
    assert table.render(built({"gw1": answer()})).splitlines()[-1].startswith("passed: 0 of 1")


def test_the_table_of_a_large_fleet_is_cut() -> None:
    text = table.render(built({f"gw{number:03}": dict(AWAY) for number in range(300)}))
    assert len(text.splitlines()) < 60
    assert "260 more hosts are in the report files" in text


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.problems: list[str] = []

    VOID = ("meta", "link", "br", "input")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def page(whole: dict[str, Any]) -> Page:
    found = Page()
    found.feed(html.render(whole))
    assert found.problems == []
    assert found.open == []
    return found


def test_the_page_needs_nothing_else() -> None:
    found = page(built())
    outside = [
        attributes
        for tag, attributes in found.tags
        if tag in ("img", "iframe", "object", "embed", "script", "link")
        and any(
            value and not value.startswith("data:")
            for name, value in attributes.items()
            if name in ("src", "href", "data")
        )
    ]
    assert outside == []
    assert "@import" not in "".join(found.texts["style"])
    assert "url(" not in "".join(found.texts["style"])
    (policy,) = [one["content"] for _tag, one in found.tags if one.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_page_takes_no_markup_from_hosts() -> None:
    clean, nasty = page(built({"gw3": answer(STOPPED)})), page(built({"gw3": FLEET["gw3"]}))
    assert [tag for tag, _more in clean.tags] == [tag for tag, _more in nasty.tags]
    assert len(nasty.texts["script"]) == 1
    shown = " ".join(nasty.texts["dd"])
    assert "<script>alert(1)</script>" in shown
    assert "{{ 7*7 }}" in shown
    assert NASTY not in shown  # its control characters


def test_the_page_has_a_row_for_each_host_and_control() -> None:
    found = page(built())
    statuses = [
        one["data-status"] for tag, one in found.tags if tag == "tr" and "data-status" in one
    ]
    assert sorted(statuses) == sorted(STATUSES.values())  # type: ignore[type-var]
    assert found.texts["code"].count("files.unfinished") == 1 + 3  # control, and three hosts


def test_the_page_is_accessible_as_far_as_markup_tells() -> None:
    found = page(built())
    tags = [tag for tag, _more in found.tags]
    assert dict(found.tags)["html"] == {"lang": "en"}
    assert tags.count("main") == tags.count("h1") == 1
    labels = {one.get("aria-labelledby") for _tag, one in found.tags} - {None}
    assert labels <= {one.get("id") for _tag, one in found.tags}
    heads = [one for tag, one in found.tags if tag == "th"]
    assert all(one.get("scope") in ("col", "row") for one in heads)
    assert any(one.get("aria-sort") == "none" for one in heads)


def test_the_trend_has_a_point_for_each_run() -> None:
    earlier = [built({"gw1": answer(), "gw2": dict(AWAY)})["summary"] for _run in range(3)]
    whole = built(earlier=earlier)
    points = html.trend(whole["trend"])
    assert [round(one["share"]) for one in points] == [50, 50, 50, 29]
    assert [one["lost"] for one in points] == [1, 1, 1, 3]
    assert sum(tag == "circle" for tag, _more in page(whole).tags) == 4
    assert sum(tag == "svg" for tag, _more in page(built()).tags) == 0


# --- files ----------------------------------------------------------------------------------------


def test_files_are_written_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    paths = files.write(built(), str(folder), list(files.FORMATS), 0o600)
    assert set(paths) == set(files.FORMATS)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        Path(path).name for path in paths.values()
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_files_may_be_the_groups_too(tmp_path: Path) -> None:
    paths = files.write(built(), str(tmp_path), ["csv"], 0o640)
    assert stat.S_IMODE(Path(paths["csv"]).stat().st_mode) == 0o640


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "compliance.csv" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        files.write(built(), str(tmp_path), ["csv"], 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["compliance.csv"]


def test_later_runs_find_earlier_ones(tmp_path: Path) -> None:
    for number in range(5):
        rows = [report.host_row("gw1", answer())]
        whole = report.build(rows, Threshold(), NOW + 60 * number)
        files.write(whole, str(tmp_path), ["json"], 0o600)
    later = NOW + 3600
    found = files.earlier(str(tmp_path), later, 3)
    assert [one["generated"] for one in found] == [int(NOW) + 60 * number for number in (2, 3, 4)]
    assert files.earlier(str(tmp_path), NOW, 30) == []
    assert files.earlier(str(tmp_path), later, 0) == []
    assert files.earlier(str(tmp_path / "none"), later, 30) == []


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"summary": {"hosts": "<script>"}',
        b'{"schema": 1, "summary": {"hosts": 1},',
    ],
)
def test_a_file_that_is_no_report_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "compliance-20200101T000000Z.json").write_bytes(junk)
    (tmp_path / "notes.json").write_text("{}")
    assert files.earlier(str(tmp_path), NOW, 30) == []


def test_a_thousand_hosts_become_reports_that_hold_them_all(tmp_path: Path) -> None:
    fleet: dict[str, dict[str, Any] | None] = {
        f"host{number:04}": dict(AWAY)
        if number % 50 == 0
        else answer()
        if number % 7
        else answer(STOPPED)
        for number in range(1000)
    }
    whole = built(fleet)
    paths = files.write(whole, str(tmp_path), list(files.FORMATS), 0o600)
    read = {name: Path(path).read_text() for name, path in paths.items()}
    assert len(json.loads(read["json"])["hosts"]) == 1000
    assert len(list(csv.DictReader(io.StringIO(read["csv"])))) == 980 * CONTROLS + 20
    assert len(ElementTree.fromstring(read["junit"])) == 1000  # noqa: S314 our own
    found = Page()
    found.feed(read["html"])
    assert sum(tag == "tr" and "data-status" in more for tag, more in found.tags) == 1000
    assert "host0999" in read["markdown"] or whole["hosts"][-1]["host"] == "host0999"
    assert whole["summary"]["unreachable"] == 20


# --- what the config service has heard ------------------------------------------------------------

SAID = {
    "running": True,
    "host": "gw1",
    "root_version": 1,
    "targets_version": 4,
    "configs": [{"path": "btfleet/1/CONNTRACK/a/b", "version": 2, "phase": "APPLIED"}],
}
ROW = {
    "host": "gw1",
    "presence": "active",
    "problems": [],
    "last_seen": int(NOW) + 5,
    "root_version": 1,
    "targets_version": 4,
    "configs": [{"path": "btfleet/1/CONNTRACK/a/b", "version": 2, "phase": "APPLIED"}],
}


@pytest.mark.parametrize(
    ("row", "status", "text"),
    [
        ({}, "pass", "it has"),
        ({"last_seen": int(NOW) - 5}, "pass", "it has"),
        ({"targets_version": 3}, "fail", "targets_version 3 was heard, 4 is what the host says"),
        ({"targets_version": 3, "last_seen": int(NOW) - 5}, "not_applicable", "not polled since"),
        ({"targets_version": 5, "configs": []}, "pass", "it has"),  # it has polled since
        ({"configs": []}, "fail", "btfleet/1/CONNTRACK/a/b: version none was heard, 2 is what"),
        ({"presence": "stale", "problems": ["not heard since x"]}, "fail", "not heard since x"),
        ({"presence": "unheard"}, "fail", "the host is unheard"),
    ],
)
def test_what_the_service_heard_is_held_against_what_the_host_says(
    row: dict[str, Any], status: str, text: str
) -> None:
    found = heard.compare(SAID, {**ROW, **row}, NOW)
    assert found.status == status
    assert text in found.actual
    assert bool(found.fix) == (status == "fail")


def test_a_host_that_the_service_does_not_know_is_named() -> None:
    found = heard.compare(SAID, None, NOW)
    assert found.status == "fail"
    assert "no token for a host of this name" in found.actual


def test_without_an_agent_there_is_nothing_to_hear() -> None:
    assert heard.compare({"running": False}, None, NOW).status == "not_applicable"


@pytest.mark.parametrize("junk", [{"configs": 5}, {"configs": [1]}, {"targets_version": "4"}])
def test_what_a_host_says_can_be_anything(junk: dict[str, Any]) -> None:
    assert heard.compare({**SAID, **junk}, ROW, NOW).status in ("pass", "fail")


def test_a_finding_of_the_service_is_a_result_like_others() -> None:
    row = report.host_row("gw1", answer(), heard.not_asked("it is away"))
    (one,) = [one for one in row["controls"] if one["id"] == "config.heard"]
    assert (one["status"], one["actual"]) == ("unknown", "it is away")
    assert row["status"] == "not_compliant"
    assert not [
        one for one in report.host_row("gw1", answer())["controls"] if one["id"] == heard.ID
    ]
