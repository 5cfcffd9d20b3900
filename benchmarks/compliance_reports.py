# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m benchmarks.compliance_reports`: the reports of a simulated fleet, format by format.

Needs build/collections in PYTHONPATH, as `make bench` has it.

What hosts answer is simulated; the code that collects and renders it is the product's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import catalogue
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import (
    data_files,
    files,
    html,
    markdown,
    report,
    table,
)

from benchmarks import machine
from lab.paths import DEFAULT_STATE

OUT = DEFAULT_STATE.with_name("bench")
RUNS = 30
NOW = 1_800_000_000.0


def answer(chance: random.Random, bad: float) -> dict[str, Any]:
    """What a host could answer: most controls pass, some have failed, a few hosts are away."""
    if chance.random() < bad / 4:
        return {"unreachable": True, "msg": "Failed to connect to the host via ssh: timed out"}
    controls = []
    for control in catalogue.CONTROLS:
        fails = chance.random() < bad
        controls.append(
            {
                "id": control.id,
                "title": control.title,
                "severity": control.severity,
                "owner": control.owner,
                "status": "fail" if fails else "pass",
                "expected": "the spec file, with remote config over it, is what is loaded",
                "actual": "max_entries is 65536, asked for is 131072" if fails else "it is so",
                "fix": "ansible-playbook btfleet.conntrack.rollout --limit host" if fails else "",
                "waiver": None,
            }
        )
    return {"controls": controls, "seconds": 0.4}


def fleet(hosts: int, bad: float, seed: int = 1) -> dict[str, dict[str, Any]]:
    """Answers by host."""
    chance = random.Random(seed)  # noqa: S311 figures, no secrets
    return {f"host{number:04d}.example.org": answer(chance, bad) for number in range(hosts)}


def build(answers: dict[str, dict[str, Any]], folder: str, now: float = NOW) -> dict[str, Any]:
    """The report, with the trend of what is in the folder."""
    rows = [report.host_row(name, one) for name, one in answers.items()]
    return report.build(rows, report.Threshold(), now, (), files.earlier(folder, now, RUNS))


def measure(hosts: int, bad: float, rounds: int) -> dict[str, float]:
    """The best of some rounds, in seconds, by step."""
    answers = fleet(hosts, bad)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            earlier = build(answers, folder, NOW - 86400 * (RUNS - number))
            files.write(earlier, folder, ["json"], 0o600)
        built = build(answers, folder)
        steps: dict[str, Callable[[], object]] = {
            "collect and judge, with the trend of 30 runs": lambda: build(answers, folder),
            "table": lambda: table.render(built),
            "json": lambda: data_files.as_json(built),
            "csv": lambda: data_files.as_csv(built),
            "junit": lambda: data_files.as_junit(built),
            "markdown": lambda: markdown.render(built),
            "html": lambda: html.render(built),
            "all files written": lambda: files.write(built, folder, list(files.FORMATS), 0o600),
        }
        found = {
            name: min(_timed(step) for _round in range(rounds)) for name, step in steps.items()
        }
        size = (Path(folder) / "compliance.html").stat().st_size
    found["html, MB"] = size / 1e6
    return found


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def text(results: dict[str, dict[str, float]]) -> str:
    """A table, in Markdown."""
    names = list(results)
    lines = [f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for step in next(iter(results.values())):
        cells = [f"{results[name][step]:.3f}" for name in names]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compliance_reports")
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 100, 500, 1000])
    parser.add_argument("--bad", type=float, default=0.05, help="share of failed results")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = {
        f"{hosts} hosts": measure(hosts, options.bad, options.rounds) for hosts in options.hosts
    }
    OUT.mkdir(parents=True, exist_ok=True)
    data = {"host": machine.of_host(), "bad": options.bad, "seconds": results}
    (OUT / "compliance_reports.json").write_text(json.dumps(data, indent=1) + "\n")
    (OUT / "compliance_reports.md").write_text(text(results))
    print(f"Reports of a simulated fleet, {options.bad:.0%} of the results failed; seconds.\n")
    print(text(results), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
