# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the agent, and what `btfleet status` makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from btfleet._config.status import Status
from btfleet.agent.v1.agent_pb2 import AgentState
from btfleet.agent_status import problems, read, to_dict
from btfleet.config.v1 import config_pb2 as pb
from btfleet.status_command import exit_code

LOADED = Status({"tier": "core/kprobe"})


def state(**changes: Any) -> AgentState:
    return AgentState(**{"health": pb.Health(healthy=True), "client": pb.ClientState(), **changes})


def config(phase: pb.ApplyPhase.ValueType) -> pb.ClientState:
    found = pb.ConfigState(path="a/b", version=3, apply_phase=phase, apply_error="no room")
    return pb.ClientState(config_states=[found])


def test_a_host_without_an_agent_lacks_nothing(tmp_path: Any) -> None:
    assert problems(read(str(tmp_path / "none"))) == []


def test_an_agent_that_is_well_is_no_problem() -> None:
    assert problems(to_dict(state(client=config(pb.APPLY_PHASE_APPLIED)))) == []
    assert problems(to_dict(state(polling_ended=True))) == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (
            state(client=config(pb.APPLY_PHASE_FAILED)),
            "config a/b version 3 FAILED: no room",
        ),
        (
            state(health=pb.Health(components={"poll": pb.Health(last_error="no answer")})),
            "the agent's poll: no answer",
        ),
        (
            state(config_status=pb.CONFIG_STATUS_EXPIRED),
            "the director has expired: no config is in force",
        ),
    ],
)
def test_each_problem_is_one_line(found: AgentState, problem: str) -> None:
    assert problems(to_dict(found)) == [problem]


def test_a_dead_agent_is_a_problem() -> None:
    dead = {"running": False, "error": "it does not run: see systemctl"}
    assert problems(dead) == ["the agent: it does not run: see systemctl"]


def test_the_trackers_state_counts_before_the_agents() -> None:
    assert exit_code(LOADED, []) == 0
    assert exit_code(LOADED, ["something"]) == 5
    assert exit_code(Status(None), []) == exit_code(Status(None), ["something"]) == 1
