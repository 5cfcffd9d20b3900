# SPDX-License-Identifier: GPL-3.0-or-later
"""One row: the guest from its first boot to the uninstall, and what was found on the way."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.matrix import cells
from tests.matrix.cells import Cell, Result
from tests.matrix.guest import TESTS, Guest
from tests.matrix.rows import Refused, Row, Tracked

NETLINK = "netlink"
# An emulated guest takes its time to be well; once it is, a short look is enough
VARIABLES = {
    "conntracker_batches": ["100%"],
    "conntracker_settle_seconds": 180,
    "conntracker_soak_seconds": 3,
}
FLOWS = "--flows 240 --min-flows 200 --rounds 2"


def run_row(row: Row, inputs: str, log: Path, times: int) -> Result:
    """Never raises for what a guest does: that is the row's trouble.

    `times` are the cycles of load and unload.
    """
    guest = Guest(row, log)
    found: dict[str, Cell] = {}
    trouble, kernel = None, ""
    begin = time.monotonic()
    try:
        guest.boot()
        kernel = guest.must("uname -r").strip()
        guest.prepare()
        if isinstance(row.gets, Refused):
            _refused(row, guest, found)
        else:
            _tracked(row, row.gets, guest, found, times)
    except Exception as error:  # noqa: BLE001  (one bad row must not stop the rest)
        trouble = " ".join(str(error).split()) or type(error).__name__
    finally:
        guest.stop()
    return Result(row.name, inputs, kernel, int(time.monotonic() - begin), found, trouble)


def _refused(row: Row, guest: Guest, found: dict[str, Cell]) -> None:
    done = guest.playbook("rollout", {**VARIABLES, **row.variables})
    found.update(cells.of_refusal(row, *done))
    _uninstall(guest, found)


def _tracked(row: Row, gets: Tracked, guest: Guest, found: dict[str, Cell], times: int) -> None:
    variables = {**VARIABLES, **row.variables}
    done = guest.playbook("rollout", variables)
    if done.status != 0:
        reason = next((line for line in done.output.splitlines() if "msg:" in line), "")
        found["verdict"] = Cell(False, f"the rollout failed: {reason.strip()[:160]}")
        return
    found.update(_state(gets, guest))
    found["idempotent"] = cells.of_second_run(*guest.playbook("rollout", variables))
    if row.breaks:
        guest.must(row.breaks.script)
        drift = json.loads(guest.run("btfleet status --json").output)["drift"]
        done = guest.playbook("rollout", variables)
        bad = [] if any(row.breaks.drift in text for text in drift) else [f"drift: {drift}"]
        bad += [f"the rollout ended with {done.status}"] if done.status else _wrong(gets, guest)
        found["repair"] = Cell(not bad, "; ".join(bad) or row.breaks.drift)
    guest.must(f"cd {TESTS}; python3 -m guest.kernel_view verify")
    found["oracle"] = cells.of_oracle(
        *guest.run(f"cd {TESTS}; python3 -m nat all --load-command 'btfleet load' {FLOWS}")
    )
    if gets.tier != NETLINK:  # its process is some milliseconds behind the kernel
        for name in ("stress", "successors"):
            found[name] = cells.of_checks(*guest.run(f"cd {TESTS}; python3 -m nat {name}"))
    found["cycles"] = cells.of_cycles(
        *guest.run(
            f"cd {TESTS}; python3 -m guest.cycles --times {times} --tiers {gets.tier}",
            timeout=times * 120 + 600,
        )
    )
    guest.reboot()
    bad = _wrong(gets, guest)
    found["reboot"] = Cell(not bad, "; ".join(bad) or "as before")
    if row.then:
        guest.change_kernel(row.new_kernel)
        new = guest.must("uname -r").strip()
        bad = [*_wrong(row.then, guest), *_unfit(row.then, guest)]
        guest.change_kernel(row.host)
        bad += [f"and back: {text}" for text in (*_wrong(gets, guest), *_unfit(gets, guest))]
        found["new kernel"] = Cell(not bad, "; ".join(bad) or f"{new}: {row.then.tier}, and back")
    _uninstall(guest, found, packages=bool(row.variables.get("conntracker_install_compiler")))


def _state(wanted: Tracked, guest: Guest) -> dict[str, Cell]:
    status = json.loads(guest.run("btfleet status --json").output)
    verdict = json.loads(guest.run("btfleet check --json").output)
    return cells.of_status(wanted, status, verdict)


def _wrong(wanted: Tracked, guest: Guest) -> list[str]:
    """What the host says of itself that is not as wanted, and what bpftool says."""
    found = _state(wanted, guest)
    bad = [f"{name}: {cell.text}" for name, cell in found.items() if cell.good is False]
    if not bad:
        view = guest.run(f"cd {TESTS}; python3 -m guest.kernel_view verify")
        bad = [] if view.status == 0 else [view.output.strip()]
    return bad


def _unfit(wanted: Tracked, guest: Guest) -> list[str]:
    """What compliance says."""
    cell = cells.of_compliance(guest.compliance(), wanted.tier)
    return [] if cell.good else [f"compliance: {cell.text}"]


def _uninstall(guest: Guest, found: dict[str, Cell], packages: bool = False) -> None:
    """And compares; `packages` that the operator has allowed are the operator's to remove."""
    done = guest.playbook("uninstall", {"uninstall_confirm": "yes"})
    if done.status != 0:
        found["uninstall"] = Cell(False, f"it ended with {done.status}")
        return
    if packages:
        guest.purge_new_packages()
    found["uninstall"] = cells.of_traces(
        *guest.run(f"cd {TESTS}; python3 -m guest.traces compare before.json")
    )
