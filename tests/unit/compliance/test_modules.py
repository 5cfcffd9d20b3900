# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on the machine that runs the tests, and both actions without a connection."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.btfleet.conntrack.plugins.action import compliance_info, compliance_report
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import catalogue
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet import fleet_view
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending import (
    release_sending,
    sending,
)

from tests.unit.compliance.fleet import AWAY, BROKEN, STOPPED, answer
from tests.unit.kernel_access import needs_root
from tests.unit.modules.conftest import Call, call

__all__ = ["call"]

WAIVER = {"control": "tracker.pins", "owner": "a", "reason": "b", "expires": "2030-01-01"}


# --- the module -----------------------------------------------------------------------------------


@needs_root
def test_a_host_without_any_of_it_is_judged_and_the_dry_run_says_the_same(call: Call) -> None:
    real = call("compliance_info", boot=False, time_sync=False)
    dry = call("compliance_info", boot=False, time_sync=False, _check=True)
    assert not real.get("failed")
    assert real["changed"] is False
    verdicts = [
        {one["id"]: (one["status"], one["fix"]) for one in result["controls"]}
        for result in (real, dry)
    ]
    assert verdicts[0] == verdicts[1]
    assert list(verdicts[0]) == [*(one.id for one in catalogue.CONTROLS), "waivers.expired"]
    assert real["summary"] == catalogue.summary(real["controls"])
    assert real["agent"]["running"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"waivers": [{**WAIVER, "control": "no.such"}]}, "'no.such', which is no control"),
        ({"waivers": [{**WAIVER, "expires": "soon"}]}, "expires 'soon', needed: a date"),
        ({"settings": {"max_entries": 1}}, "max_entries is 1, needed: a number from 1024"),
        ({"settings": {"tiers": ["core/magic"]}}, "tiers holds 'core/magic'"),
        ({"_version": "../x", "_sha256": "0" * 64}, "version is '../x'"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    call: Call, arguments: dict[str, Any], message: str
) -> None:
    assert message in call("compliance_info", **arguments)["msg"]


def test_without_root_it_says_what_to_do(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "run this task as root" in call("compliance_info")["msg"]


# --- what the module is told by its action ------------------------------------------------------


def make(plugin: Any, arguments: dict[str, Any], check_mode: bool = False) -> Any:
    task = SimpleNamespace(
        args=arguments,
        async_val=0,
        check_mode=check_mode,
        action="it",
        diff=False,
        environment=None,
    )
    return plugin.ActionModule(task, SimpleNamespace(), None, None, None, None)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The collection's own files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("conntrack-x86_64.bpf.o", "btfleet-1.2.3.tar.gz", "own.bpf.o"):
        (folder / name).write_text(name)
    for module in (sending, release_sending):
        monkeypatch.setattr(module, "FILES", str(folder))
    return folder


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every action does first needs a connection; these do nothing with one."""
    monkeypatch.setattr(ActionBase, "run", lambda *_all, **_more: {})


Told = dict[str, Any]


def tell(files: Path, arguments: dict[str, Any], result: dict[str, Any]) -> tuple[Told, Told]:
    action = make(compliance_info, arguments)
    told: Told = {}

    def execute(given: Told, _task_vars: Told) -> Told:
        told.update(given)
        return {"host_time": given["control_time"], **result}

    action.execute = execute
    action._find_needle = lambda _folder, name: str(files / name)
    return told, action.run(task_vars={"inventory_hostname": "gw1"})


@pytest.mark.usefixtures("no_connection")
def test_hosts_are_held_against_what_the_collection_carries(files: Path) -> None:
    told, _result = tell(files, {}, {"failed": True})
    assert told["_version"] == "1.2.3"
    assert told["_objects"] == {"x86_64": sending.digest(str(files / "conntrack-x86_64.bpf.o"), "")}
    assert told["host"] == "gw1"
    told, _result = tell(files, {"object": "own.bpf.o", "host": "gw2"}, {"failed": True})
    assert told["_objects"] == {"any": sending.digest(str(files / "own.bpf.o"), "")}
    assert told["host"] == "gw2"


@pytest.mark.usefixtures("no_connection")
def test_what_the_action_says_is_not_the_users_to_say(files: Path) -> None:
    for name in ("_objects", "_version", "_sha256"):
        with pytest.raises(AnsibleActionFail, match="set by the action plugin alone"):
            tell(files, {name: "x"}, {})


def clock(actual: str = "3600 s ahead") -> dict[str, Any]:
    controls = answer()["controls"]
    for one in controls:
        if one["id"] == "clock.offset":
            one.update(status="fail", actual=actual, fix="set it")
    return {"controls": controls, "seconds": 0.0}


@pytest.mark.usefixtures("no_connection")
def test_the_time_to_reach_a_host_is_not_its_clocks_fault(files: Path) -> None:
    _told, result = tell(files, {}, clock())  # the host says just the time of the control node
    (one,) = [one for one in result["controls"] if one["id"] == "clock.offset"]
    assert (one["status"], one["fix"]) == ("pass", "")
    assert result["compliant"] is True
    assert result["summary"]["fail"] == 0
    assert result["answered_at"] > 0


@pytest.mark.usefixtures("no_connection")
def test_a_clock_that_is_wrong_stays_wrong(files: Path) -> None:
    _told, result = tell(files, {}, {**clock(), "host_time": 5.0})
    assert result["summary"]["fail"] == 1
    _told, result = tell(files, {"control_time": 5.0}, clock())  # the caller's word counts
    assert not catalogue.is_compliant(result["controls"])


# --- the report -----------------------------------------------------------------------------------


class HostVars(dict[str, Any]):
    def raw_get(self, name: str) -> Any:
        return self[name]


RESULTS = {"gw1": answer(), "gw2": answer(STOPPED), "gw3": AWAY, "gw4": BROKEN}


def report(
    arguments: dict[str, Any],
    check_mode: bool = False,
    results: dict[str, Any] | None = None,
    monkeypatch: pytest.MonkeyPatch | None = None,
) -> dict[str, Any]:
    hosts = HostVars(
        {name: {"compliance_result": one} for name, one in (results or RESULTS).items()}
    )
    hosts["gw5"] = {}  # in the play, and never asked
    if monkeypatch:
        monkeypatch.setattr(ActionBase, "validate_argument_spec", _validated)
    task_vars = {
        "hostvars": hosts,
        "ansible_play_hosts_all": list(hosts),
        "groups": {"all": list(hosts)},
    }
    done: dict[str, Any] = make(compliance_report, arguments, check_mode).run(task_vars=task_vars)
    return done


def _validated(action: ActionBase, argument_spec: dict[str, Any]) -> Any:
    """As Ansible's own, which wants a task of its own making."""
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator  # noqa: PLC0415

    found = ArgumentSpecValidator(argument_spec).validate(action._task.args)
    if found.error_messages:
        raise AnsibleActionFail("; ".join(found.error_messages))
    return found, found.validated_parameters


@pytest.mark.usefixtures("no_connection")
def test_the_fleet_fails_by_the_threshold_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reports"
    result = report({"folder": str(folder), "table": False}, monkeypatch=monkeypatch)
    assert result["failed"] is True
    assert result["changed"] is False
    assert result["bad"] == ["gw3", "gw4", "gw5"]  # gw2's finding is of severity low
    assert len(result["msg"].splitlines()) == 1
    assert str(folder / "compliance.html") in result["msg"]
    assert len(list(folder.iterdir())) == 5
    again = report({"folder": str(folder), "fail_percent": 60}, monkeypatch=monkeypatch)
    assert "failed" not in again
    assert again["passed"] is True


@pytest.mark.usefixtures("no_connection")
def test_a_dry_run_says_the_same_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reports"
    arguments = {"folder": str(folder), "table": False}
    result = report(arguments, check_mode=True, monkeypatch=monkeypatch)
    assert result["failed"] is True
    assert result["bad"] == ["gw3", "gw4", "gw5"]
    assert result["files"] == {}
    assert not folder.exists()


@pytest.mark.usefixtures("no_connection")
def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(AnsibleActionFail, match="cannot write the reports to"):
        report({"folder": str(tmp_path / "reports"), "table": False}, monkeypatch=monkeypatch)


def row(host: str) -> dict[str, Any]:
    return {
        "host": host,
        "presence": "stale",
        "problems": ["not heard since then"],
        "last_seen": 1,
        "root_version": 1,
        "targets_version": 1,
        "configs": [],
    }


SERVICE = {"address": "c:1", "ca": "/ca.pem", "token": "t" * 20}


@pytest.mark.usefixtures("no_connection")
def test_what_the_service_has_heard_becomes_a_control(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(service: fleet_view.Service) -> list[dict[str, Any]]:
        asked.append(service)
        return [row("one"), row("stranger")]

    monkeypatch.setattr(fleet_view, "fetch", fetch)
    shown: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, text: shown.append(text))
    running = {**answer(), "agent": {"running": True, "host": "one"}, "answered_at": 5.0}
    result = report({"service": SERVICE}, results={"gw1": running}, monkeypatch=monkeypatch)
    assert result["summary"]["controls"]["fail"] == 1
    assert "config.heard" in shown[0]
    assert "1 hosts of the config service are not listed here: stranger" in shown[0]
    assert asked[0].token == SERVICE["token"]
    assert SERVICE["token"] not in str(result) + shown[0]


@pytest.mark.usefixtures("no_connection")
def test_a_service_that_does_not_answer_is_a_note_and_unknown_for_each_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(_service: fleet_view.Service) -> list[dict[str, Any]]:
        raise fleet_view.FleetViewError("c:1 is not to be reached")

    monkeypatch.setattr(fleet_view, "fetch", fetch)
    shown: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, text: shown.append(text))
    running = {**answer(), "agent": {"running": True, "host": "gw1"}, "answered_at": 5.0}
    results = {"gw1": running, "gw2": answer()}
    result = report({"service": SERVICE}, results=results, monkeypatch=monkeypatch)
    assert result["summary"]["controls"]["unknown"] == 1  # gw2 has no agent
    assert "note: the config service was not heard: c:1 is not to be reached" in shown[0]


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize(
    "arguments",
    [
        {"formats": ["pdf"]},
        {"mode": "0644"},
        {"fail_severity": "worst"},
        {"service": {"address": "c:1", "ca": "/ca.pem"}},
        {"nonsense": 1},
    ],
)
def test_arguments_that_cannot_be_are_refused(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AnsibleActionFail):
        report({**arguments, "table": False}, monkeypatch=monkeypatch)
