# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports on the fleet. It runs on the control node and never uses the connection."""

from __future__ import annotations

import os
import time
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    SEVERITIES,
    Finding,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import (
    files,
    heard,
    report,
    table,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet import fleet_view

_TEXT, _PATH = {"type": "str"}, {"type": "path"}
_ARGUMENTS = {
    "result": {**_TEXT, "default": "compliance_result"},
    "hosts": {"type": "list", "elements": "str"},
    "folder": _PATH,
    "formats": {
        "type": "list",
        "elements": "str",
        "choices": list(files.FORMATS),
        "default": list(files.FORMATS),
    },
    "mode": {**_TEXT, "choices": ["0600", "0640"], "default": "0600"},
    "table": {"type": "bool", "default": True},
    "trend": {"type": "int", "default": 30},
    "fail_severity": {**_TEXT, "choices": [*SEVERITIES, "none"], "default": "medium"},
    "fail_percent": {"type": "float", "default": 0},
    "service": {
        "type": "dict",
        "options": {
            "address": {**_TEXT, "required": True},
            "ca": {**_PATH, "required": True},
            "token": {**_TEXT, "no_log": True},
            "token_file": _PATH,
            "tls_server_name": {**_TEXT, "default": ""},
            "client_certificate": _PATH,
            "client_key": {**_PATH, "no_log": False},
        },
        "required_one_of": [["token", "token_file"]],
        "mutually_exclusive": [["token", "token_file"]],
        "required_together": [["client_certificate", "client_key"]],
    },
}


class ActionModule(ActionBase):
    """See the module's documentation."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Collects, judges, writes; fails by the threshold."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        now, folder = time.time(), options["folder"]
        earlier = files.earlier(folder, now, options["trend"]) if folder else []
        results = _results(options, task_vars)
        service, notes = _Service.ask(options["service"], results, task_vars)
        severity = options["fail_severity"]
        built = report.build(
            (report.host_row(name, one, service.finding(name)) for name, one in results.items()),
            report.Threshold(None if severity == "none" else severity, options["fail_percent"]),
            now,
            notes,
            earlier,
        )
        written: dict[str, str] = {}
        if folder and not self._task.check_mode:
            written = _write(built, options)
        if options["table"]:
            Display().display(table.render(built))
        summary = built["summary"]
        result.update(
            changed=False,
            passed=summary["passed"],
            summary=summary,
            bad=built["bad"],
            files=written,
            msg=report.verdict_line(built),
        )
        if not summary["passed"]:
            result["failed"] = True
            if written:
                result["msg"] += (
                    f" (all of it: {written.get('html') or next(iter(written.values()))})"
                )
        return result


def _results(options: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
    """What each host has answered, by host; None where there is nothing."""
    names = options["hosts"]
    if names is None:
        names = task_vars["ansible_play_hosts_all"]
    hostvars = task_vars["hostvars"]
    # Raw: what hosts have said is data, and is never templated
    return {
        name: hostvars.raw_get(name).get(options["result"]) if name in hostvars else None
        for name in names
    }


def _write(built: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    folder = os.path.abspath(options["folder"])
    try:
        return files.write(built, folder, options["formats"], int(options["mode"], 8))
    except OSError as exc:
        raise AnsibleActionFail(
            f"cannot write the reports to {folder} ({exc.strerror}): make room there, or name "
            "another folder"
        ) from exc


class _Service:
    """What the config service has heard, as far as it was asked."""

    def __init__(
        self,
        results: Mapping[str, Any],
        rows: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        self._results, self._rows, self._error = results, rows, error

    @classmethod
    def ask(
        cls,
        options: Mapping[str, Any] | None,
        results: Mapping[str, Any],
        task_vars: Mapping[str, Any],
    ) -> tuple[_Service, list[str]]:
        """Asks it, if it is named; and what is to be noted of its answer."""
        if not options:
            return cls(results), []
        try:
            token = options["token"] or fleet_view.read_token(options["token_file"])
            rows = fleet_view.fetch(
                fleet_view.Service(
                    address=options["address"],
                    ca=options["ca"],
                    token=token,
                    tls_server_name=options["tls_server_name"],
                    client_certificate=options["client_certificate"] or "",
                    client_key=options["client_key"] or "",
                )
            )
        except fleet_view.FleetViewError as exc:
            return cls(results, error=str(exc)), [f"the config service was not heard: {exc}"]
        by_host = {row["host"]: row for row in rows}
        known = {*task_vars.get("groups", {}).get("all", []), *map(_fleet_name, results.values())}
        unlisted = sorted(name for name in by_host if name not in known)
        notes = []
        if unlisted:
            shown = ", ".join(unlisted[:10]) + (", …" if len(unlisted) > 10 else "")
            notes.append(
                f"{len(unlisted)} hosts of the config service are not listed here: {shown}"
            )
        return cls(results, by_host), notes

    def finding(self, name: str) -> Finding | None:
        """What is to be said of one host; None if the service was not asked, or the host not."""
        result = self._results[name]
        if (self._rows is None and self._error is None) or not isinstance(result, Mapping):
            return None
        said = result.get("agent")
        said = said if isinstance(said, Mapping) else {}
        if not said.get("running"):
            return heard.compare({}, None, 0.0)
        if self._rows is None:
            return heard.not_asked(str(self._error))
        row = self._rows.get(_fleet_name(result) or name)
        return heard.compare(said, row, float(result.get("answered_at") or 0))


def _fleet_name(result: Any) -> str | None:
    """The name that a host has in the fleet, as it says itself."""
    said = result.get("agent") if isinstance(result, Mapping) else None
    name = said.get("host") if isinstance(said, Mapping) else None
    return name if isinstance(name, str) else None
