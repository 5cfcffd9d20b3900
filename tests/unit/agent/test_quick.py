# SPDX-License-Identifier: GPL-3.0-or-later
"""A look-up starts without what costs more than the look-up, and means what argparse means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from btfleet import cli, quick
from hypothesis import example, given, settings
from hypothesis import strategies as st

_WORDS = st.sampled_from(
    [
        *(
            "--json",
            "--netns",
            "--protocol",
            "--zone",
            "--zon",
            "--zone=3",
            "--help",
            "-h",
            "--",
            "-1",
        ),
        *("10.0.0.2:1", "[fd00::1]:2", "udp", "blue", "7", "", "0007", " 7", "1_0", "²", "-"),
    ]
)
# What a look-up imports beyond what Python does at its start; each costs time at each call
_LOOKUP_MODULES, _STATUS_MODULES = 36, 125
_DEAR = {
    "argparse",
    "typing",
    "re",
    "json",
    "socket",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
}


@settings(max_examples=1000)
@example(["1:1", "--netns", "--json", "--netns", "blue", "1:1"])
@example(["1:1", "--zone", "x", "--zone", "7", "1:1"])
@given(st.lists(_WORDS, max_size=7))
def test_it_means_what_argparse_means_or_leaves_it_to_argparse(words: list[str]) -> None:
    arguments = ["conntrack", "lookup", *words]
    found = quick.parse(arguments)
    if found is not None:
        expected = vars(cli._parser().parse_args(arguments))
        assert {**vars(found), "run": found.run} == expected


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_status_means_what_argparse_means(words: list[str]) -> None:
    found = quick.parse(["status", *words])
    assert found is not None
    assert {**vars(found), "run": found.run} == vars(cli._parser().parse_args(["status", *words]))


@pytest.mark.parametrize(
    "words", [["--json"], ["--protocol", "udp"], ["--zone", "7", "--netns", "blue"], []]
)
def test_what_is_well_formed_needs_no_argparse(words: list[str]) -> None:
    assert quick.parse(["conntrack", "lookup", *words, "10.0.0.2:1", "10.0.0.3:2"]) is not None


@pytest.mark.parametrize(
    "arguments", [[], ["status", "--js"], ["conntrack"], ["conntrack", "dump"]]
)
def test_other_commands_are_left_to_argparse(arguments: list[str]) -> None:
    assert quick.parse(arguments) is None


def imported(checkout: Path, *arguments: str) -> tuple[str, set[str]]:
    """The exit code of a command, and the modules that it imported."""
    program = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(checkout / 'agent')!r})\n"
        "from btfleet.cli import main\n"
        f"code = main({list(arguments)!r})\n"
        "print(code, *sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True
    )
    code, *modules = done.stdout.splitlines()[-1].split()
    return code, set(modules)


def test_a_look_up_imports_little(checkout: Path) -> None:
    code, modules = imported(checkout, "conntrack", "lookup", "10.0.0.2:1", "10.0.0.3:2")
    # Whether a tracker is loaded here or not, all is imported by then
    assert code in ("1", "3")
    assert "btfleet._kernel.conntrack.lookup" in modules
    assert not _DEAR & modules
    assert len(modules) <= _LOOKUP_MODULES, sorted(modules)


def test_a_status_without_an_agent_imports_nothing_of_one(checkout: Path) -> None:
    _code, modules = imported(checkout, "status")
    assert "btfleet._config.status" in modules
    assert not {"argparse", "hashlib", "tempfile", "platform", "importlib.abc", "grpc"} & modules
    assert len(modules) <= _STATUS_MODULES, sorted(modules)
