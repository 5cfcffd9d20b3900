# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of other programs come as one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lab.__main__ import choose_hosts, main
from lab.catalogue import find_host
from lab.commands import command_name, require, run, run_logged
from lab.errors import LabError
from lab.guests import check_clock
from lab.qemu import RunningGuest


def test_failure_is_the_last_line() -> None:
    with pytest.raises(LabError) as caught:
        run(["sh", "-c", "echo first >&2; echo last >&2; exit 3"])
    assert str(caught.value) == "sh failed with status 3: last"


def test_failure_names_the_log_and_the_attempt(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(LabError) as caught:
        run_logged(["sh", "-c", "echo said; exit 1"], log, "the attempt", print)
    assert str(caught.value) == f"the attempt failed with status 1: said (log: {log})"


def test_a_long_step_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[str] = []
    wait = "until [ -e go ]; do sleep 0.01; done"

    def say(text: str) -> None:
        told.append(text)
        (tmp_path / "go").touch()

    run_logged(
        ["sh", "-c", f"cd {tmp_path}; echo first; echo second; {wait}"],
        tmp_path / "log",
        "the attempt",
        say,
        every=0.2,
    )
    assert told[-1].startswith("the attempt, ")
    assert told[-1].endswith(" s: second")


def test_administration_tools_are_found_without_their_folder_on_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    require("bpftool")
    assert "bpftool v" in run(["bpftool", "version"])


def test_missing_program() -> None:
    with pytest.raises(
        LabError, match="btfleet-no-such-program not found: run `python3 -m lab setup`"
    ):
        run(["btfleet-no-such-program"])


def test_command_name_without_its_wrappers() -> None:
    assert command_name(["sudo", "env", "A=b", "/usr/bin/apt-get", "update"]) == "apt-get"


def test_unknown_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path / "lab"), "up", "debian99"]) == 1
    assert "no host is called debian99: choose from debian12, debian13" in capsys.readouterr().err


def test_ssh_to_a_guest_that_is_not_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--state", str(tmp_path / "lab"), "ssh", "debian12"]) == 1
    assert "run `python3 -m lab up debian12`" in capsys.readouterr().err


def test_down_with_nothing_to_stop(tmp_path: Path) -> None:
    assert main(["--state", str(tmp_path / "lab"), "down"]) == 0
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("names", "cpus", "wanted"),
    [
        (["debian12", "debian13"], None, {"debian12": 2, "debian13": 2}),
        (["debian12", "debian13"], [1], {"debian12": 1, "debian13": 1}),
        (["debian12", "debian13"], [1, 3], {"debian12": 1, "debian13": 3}),
        (["debian12", "debian12"], None, {"debian12": 2}),
    ],
)
def test_processors_are_the_catalogues_or_of_all_or_of_each(
    names: list[str], cpus: list[int] | None, wanted: dict[str, int]
) -> None:
    assert {host.name: host.cpus for host in choose_hosts(names, cpus)} == wanted


def test_processors_of_some_names_only_are_refused() -> None:
    with pytest.raises(LabError, match="2 numbers for 3 guests: give one for all of them, or one"):
        choose_hosts(["debian12", "debian13", "debian13-b"], [1, 2])


def test_who_counts_instructions_has_one_processor() -> None:
    found = choose_hosts(["debian12", "debian13"], None, icount=True)
    assert [(host.name, host.cpus, host.icount) for host in found] == [
        ("debian12", 1, True),
        ("debian13", 1, True),
    ]
    with pytest.raises(LabError, match="--icount counts the instructions of one processor"):
        choose_hosts(["debian12"], [2], icount=True)


@pytest.mark.parametrize(
    ("runs", "asked", "message"),
    [
        (True, False, "debian13 is running and its clock counts instructions, needed: time: run"),
        (False, True, "debian13 is running and its clock goes by time, needed: instructions: run"),
    ],
)
def test_a_running_guest_with_another_clock_is_refused(
    runs: bool, asked: bool, message: str
) -> None:
    running = RunningGuest(7, "/state/debian13/qemu.pid", 2222, "tcg", 1024, icount=runs)
    host = find_host("debian13").counting() if asked else find_host("debian13")
    with pytest.raises(LabError, match=message):
        check_clock(host, running)
    check_clock(host, None)
    check_clock(host, dataclasses.replace(running, icount=asked))


@pytest.mark.parametrize("text", ["0", "1,x", "1,,2", ""])
def test_processors_that_are_no_numbers_are_refused(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["up", "--cpus", text, "debian12"])
    assert "argument --cpus" in capsys.readouterr().err
