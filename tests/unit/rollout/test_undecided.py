# SPDX-License-Identifier: GPL-3.0-or-later
"""A dry run of a host that lacks only what the role would bring, by the role's own variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "conntracker"
NO_BTF = ["no usable BTF (nothing in /sys/kernel/btf)"]
LOCKED = ["kernel lockdown is confidentiality, which forbids BPF programs to read kernel memory"]
NO_PACKAGES = ["no bcc to read the kernel's headers with (x)", "no headers of this kernel (y)"]


def undecided(reasons: dict[str, list[str]], **variables: Any) -> object:
    loader = DataLoader()
    known: dict[str, Any] = {
        **loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True),
        "ansible_check_mode": True,
        "conntracker_install_compiler": False,
        "__conntracker_support": {"supported": False, "reasons": reasons},
        **variables,
    }
    return Templar(loader, variables=known).template(known["__conntracker_undecided"])


BRINGS_TYPES = {"__conntracker_types": {"changed": True}}
BRINGS_PACKAGES = {"conntracker_install_compiler": True}


def test_types_or_packages_that_are_to_come_can_decide() -> None:
    assert undecided({"core/kprobe": NO_BTF}, **BRINGS_TYPES) is True
    assert undecided({"core/kprobe": NO_BTF, "runtime": NO_PACKAGES}, **BRINGS_PACKAGES) is True


@pytest.mark.parametrize(
    ("reasons", "variables"),
    [
        ({"core/kprobe": NO_BTF}, {}),
        ({"core/kprobe": NO_BTF}, {"__conntracker_types": {"changed": False}}),
        ({"core/kprobe": NO_BTF}, {**BRINGS_TYPES, "conntracker_btf_path": "/a/file"}),
        ({"core/kprobe": NO_BTF + LOCKED}, BRINGS_TYPES),
        ({"core/kprobe": NO_BTF}, BRINGS_PACKAGES),
        ({"runtime": NO_PACKAGES}, {}),
        ({"runtime": NO_PACKAGES + LOCKED}, BRINGS_PACKAGES),
        ({"core/kprobe": NO_BTF}, {**BRINGS_TYPES, "ansible_check_mode": False}),
    ],
)
def test_nothing_that_comes_would_change_the_verdict(
    reasons: dict[str, list[str]], variables: dict[str, Any]
) -> None:
    assert undecided(reasons, **variables) is False


def test_a_host_that_is_supported_or_was_not_asked_is_decided() -> None:
    supported = {"supported": True, "reasons": {"core/fentry": NO_BTF}}
    assert undecided({}, __conntracker_support=supported, **BRINGS_TYPES) is False
    loader = DataLoader()
    known = {
        **loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True),
        "ansible_check_mode": True,
        "conntracker_install_compiler": True,
    }
    assert Templar(loader, variables=known).template(known["__conntracker_undecided"]) is False
