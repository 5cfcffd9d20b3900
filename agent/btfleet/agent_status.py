# SPDX-License-Identifier: GPL-3.0-or-later
"""The poller agent's state for `btfleet status`, which works without an agent too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from btfleet.dependencies import missing
from btfleet.poller.errors import SettingsError
from btfleet.poller.places import PATH, SOCKET

if TYPE_CHECKING:
    from btfleet.agent.v1.agent_pb2 import AgentState

# Seconds: an agent that is alive answers in milliseconds
_TIMEOUT = 3.0


def read(settings_path: str = PATH) -> dict[str, Any] | None:
    """The agent's own state (AgentState as JSON has it) with `running`; None without an agent.

    Where it does not run, or does not answer, there is only an `error`.
    """
    if not os.path.lexists(settings_path):
        return None
    from btfleet.poller.settings import load  # noqa: PLC0415 not for hosts without an agent

    try:
        path = load(settings_path).socket
    except SettingsError as exc:
        if os.access(settings_path, os.R_OK):
            return {"running": False, "error": str(exc)}
        path = SOCKET  # the settings are not for everybody to read
    if not os.path.exists(path):
        return {
            "running": False,
            "error": "it does not run: see `systemctl status btfleet-agent.service`",
        }
    return _ask(path)


def _ask(path: str) -> dict[str, Any]:
    from btfleet.poller.put_off import put_off  # noqa: PLC0415 only for gRPC

    put_off()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import grpc  # noqa: PLC0415 takes longer than all the rest
    except ModuleNotFoundError as exc:
        return {"running": False, "error": f"it cannot be asked: {missing(exc)}"}
    from google.protobuf import empty_pb2  # noqa: PLC0415 only for grpc's call

    from btfleet.agent.v1 import agent_pb2_grpc  # noqa: PLC0415 imports grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            state = agent_pb2_grpc.AgentServiceStub(channel).GetState(
                empty_pb2.Empty(), timeout=_TIMEOUT
            )
        except grpc.RpcError as exc:
            return {"running": False, "error": f"{path} does not answer ({exc.details()})"}
    return to_dict(state)


def to_dict(state: AgentState) -> dict[str, Any]:
    """Return what the agent answers as plain data, with `running` and `error`."""
    from google.protobuf import json_format  # noqa: PLC0415 not there without the agent

    data: dict[str, Any] = json_format.MessageToDict(
        state, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"running": True, "error": None, **data}


def problems(agent: dict[str, Any] | None) -> list[str]:
    """Return what is wrong with the agent, one line each; nothing where there is no agent."""
    if agent is None:
        return []
    if not agent["running"]:
        return [f"the agent: {agent['error']}"]
    found = [
        f"the agent's {name}: {part['last_error']}"
        for name, part in sorted(agent["health"]["components"].items())
        if not part["healthy"]
    ]
    if agent["config_status"] == "CONFIG_STATUS_EXPIRED":
        found.append("the director has expired: no config is in force")
    found += [
        f"config {state['path']} version {state['version']} FAILED: {state['apply_error']}"
        for state in agent["client"]["config_states"]
        if state["apply_phase"] == "APPLY_PHASE_FAILED"
    ]
    return found


def describe(agent: dict[str, Any] | None, now: int) -> list[str]:
    """The lines for a person."""
    if agent is None:
        return []
    if not agent["running"]:
        return [f"agent     NOT running: {agent['error']}"]
    client, health = agent["client"], agent["health"]
    success = int(agent["last_success_at"])
    polled = f"last success {age(now - success)} ago" if success else "no success yet"
    well = "well" if health["healthy"] else "NOT well"
    interval = f"{agent['poll_interval_seconds']:g}"
    lines = [f"agent     {well}: polls {agent['service']} each {interval} s, {polled}"]
    lines += [
        f"problem   {name}: {part['last_error']}"
        for name, part in sorted(health["components"].items())
        if not part["healthy"]
    ]
    if agent["polling_ended"]:
        lines.append("polling   ended: the service has remote config switched off")
    if agent["config_status"] == "CONFIG_STATUS_EXPIRED":
        lines.append("expired   the director has expired: no config is in force")
    lines.append(f"remote    root {client['root_version']}, targets {client['targets_version']}")
    lines += [_config(state, now) for state in client["config_states"]]
    lines += [
        f"setting   {value['key']} {value['value']}, decided by {value['owner'] or 'nobody known'}"
        for value in agent["effective"]
        if value["owner"] != "base"
    ]
    return lines


def _config(state: dict[str, Any], now: int) -> str:
    phase = state["apply_phase"].replace("APPLY_PHASE_", "")
    line = (
        f"config    {state['path']} version {state['version']}: {phase} "
        f"for {age(now - int(state['changed_at']))}"
    )
    if state["fingerprint"]:
        line += f", spec {state['fingerprint'][:12]}"
    return f"{line}: {state['apply_error']}" if state["apply_error"] else line


def age(seconds: int) -> str:
    """A time span for a person."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
