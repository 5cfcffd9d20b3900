# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/compliance.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.wanted import Limits
from ansible_collections.btfleet.conntrack.plugins.modules import (
    compliance_info,
    compliance_report,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance.report import CONTROLS


def table(checkout: Path, heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by their first cell."""
    text = (checkout / "docs" / "compliance.md").read_text()
    part = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_catalogue_is_documented_as_it_is(checkout: Path) -> None:
    documented = table(checkout, "Controls")
    assert list(documented) == list(CONTROLS)
    for name, control in CONTROLS.items():
        assert documented[name][:3] == [control.title, control.severity, control.owner]


def test_the_thresholds_are_documented_as_they_are(checkout: Path) -> None:
    documented = {name: float(cells[0]) for name, cells in table(checkout, "Thresholds").items()}
    assert documented == {name: float(value) for name, value in Limits()._asdict().items()}
    options = yaml.safe_load(compliance_info.DOCUMENTATION)["options"]["thresholds"]["suboptions"]
    assert {name: float(one["default"]) for name, one in options.items()} == documented


def test_the_playbooks_variables_are_documented(checkout: Path) -> None:
    playbook = (checkout / "playbooks" / "compliance.yml").read_text()
    used = set(re.findall(r"\bcompliance_\w+", playbook)) - {"compliance_report"}
    documented = set(table(checkout, "Running it"))
    assert used <= documented
    options = yaml.safe_load(compliance_report.DOCUMENTATION)["options"]
    assert {f"compliance_{name}" for name in options} - documented == {
        "compliance_result",
        "compliance_hosts",
    } - documented
