# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from btfleet import __version__

from tools import check_role_specs, check_tarball

GOOD = [
    *check_tarball.OBJECTS,
    check_tarball.DESCRIPTION,
    "roles/conntracker/files/btfleet-1.2.3.tar.gz",
    "README.md",
    "meta/runtime.yml",
]


def test_one_version(checkout: Path) -> None:
    galaxy = yaml.safe_load((checkout / "galaxy.yml").read_text())
    assert galaxy["version"] == __version__


def test_a_complete_tarball_is_fine() -> None:
    assert list(check_tarball.problems(GOOD, "1.2.3")) == []


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("lab/qemu.py", "lab/qemu.py is not meant for users"),
        ("plugins/__pycache__/x.pyc", "plugins/__pycache__/x.pyc is hidden or a cache"),
        ("bpf/conntrack.o", "bpf/conntrack.o is a stray object"),
    ],
)
def test_what_does_not_belong_in_a_tarball(extra: str, problem: str) -> None:
    assert list(check_tarball.problems([*GOOD, extra], "1.2.3")) == [problem]


def test_a_tarball_without_an_object() -> None:
    missing = check_tarball.OBJECTS[0]
    names = [name for name in GOOD if name != missing]
    assert list(check_tarball.problems(names, "1.2.3")) == [f"{missing} is missing"]


@pytest.mark.parametrize(
    ("defaults", "options", "problem"),
    [
        ({"a": 1}, {"a": {"default": 1}}, None),
        ({}, {"a": {"type": "str"}}, None),
        ({"a": "{{ b }}"}, {"a": {"type": "str"}}, None),
        ({"a": 1}, {}, "a is a default, but no option in argument_specs"),
        (
            {},
            {"a": {"default": 1}},
            "a has a default in argument_specs, but none in defaults/main.yml",
        ),
        (
            {"a": 1},
            {"a": {"default": 2}},
            "a is 1 in defaults/main.yml, but 2 in argument_specs",
        ),
    ],
)
def test_defaults_against_argument_specs(
    defaults: dict[str, Any], options: dict[str, dict[str, Any]], problem: str | None
) -> None:
    assert list(check_role_specs.problems(defaults, options)) == ([problem] if problem else [])


def test_a_role_without_argument_specs(tmp_path: Path) -> None:
    assert check_role_specs.role_problems(tmp_path) == [
        f"{tmp_path}: meta/argument_specs.yml is missing or empty"
    ]
