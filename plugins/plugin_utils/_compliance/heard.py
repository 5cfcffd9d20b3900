# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the config service has heard of a host, against what the host says itself. Pure.

The host was asked first. So what the service hears after that cannot be older than what the host
said; where it has heard nothing since, the next poll may still bring the two together.
"""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    MEDIUM,
    NETWORK,
    Control,
    Finding,
    judge,
    listed,
    not_applicable,
    unknown,
)

ID = "config.heard"
_EXPECTED = "the config service has heard what the host says"
_FIX = (
    "see that no other host uses this name or its token, and that the host polls the service that "
    "was asked (`btfleet status` on the host names it)"
)


def compare(said: Mapping[str, Any], row: Mapping[str, Any] | None, answered_at: float) -> Finding:
    """`said` is the module's `agent`, `row` the host's in `fleet_view`; both are untrusted data."""
    if not said.get("running"):
        return not_applicable(_EXPECTED, "there is no running agent to compare with")
    if row is None:
        return judge(
            False,
            _EXPECTED,
            "the config service has no token for a host of this name",
            "give the config service the hash of the host's token (config_service_tokens)",
        )
    if row["presence"] != "active":
        problems = listed(list(map(str, row["problems"]))) or f"the host is {row['presence']}"
        return judge(False, _EXPECTED, problems, _FIX)
    older = [
        f"{name} {row[name]} was heard, {said.get(name)} is what the host says"
        for name in ("root_version", "targets_version")
        if row[name] < _number(said.get(name))
    ]
    if not older and row["targets_version"] == said.get("targets_version"):
        older = _configs(said.get("configs"), row["configs"])
    if older and (row["last_seen"] or 0) < answered_at:
        why = f"{listed(older)}; the host has not polled since it was asked"
        return not_applicable(_EXPECTED, why)
    return judge(not older, _EXPECTED, listed(older) or "it has", _FIX)


def _configs(said: Any, heard: list[Mapping[str, Any]]) -> list[str]:
    """Configs of which another version was heard. Their phases may have gone on since."""
    there = {one["path"]: one["version"] for one in heard}
    here = {
        str(one.get("path")): _number(one.get("version"))
        for one in (said if isinstance(said, list) else [])
        if isinstance(one, Mapping)
    }
    return [
        f"{path}: version {there.get(path, 'none')} was heard, "
        f"{here.get(path, 'none')} is what the host says"
        for path in sorted({*there, *here})
        if there.get(path) != here.get(path)
    ]


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def not_asked(why: str) -> Finding:
    """Where the service did not answer."""
    return unknown(_EXPECTED, why, "see the line, or go without it (compliance_service)")


# It is judged on the control node, so the catalogue of the hosts has it not
CONTROL = Control(
    ID, "The service has heard the same", MEDIUM, NETWORK, lambda *_both: not_asked("not asked")
)
