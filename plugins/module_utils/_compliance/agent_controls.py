# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of the poller agent and of remote config, and of the clock that both go by."""

from __future__ import annotations

import re
import time
from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.poller_agent import (
    STARTED,
    UNIT,
)

from .host import Agent, Host
from .units import UnitReading
from .verdict import (
    HIGH,
    LOW,
    MEDIUM,
    NETWORK,
    PLATFORM,
    SECURITY,
    Control,
    Finding,
    judge,
    listed,
    not_applicable,
    unknown,
)
from .wanted import Wanted

_NO_AGENT = "there is no poller agent"
_STOPPED = "the agent does not run, or does not answer (agent.unit, agent.health)"
# The agent's words for both refusals of its token (poller/service_channel.py)
_REFUSED = re.compile(r"(?:does not take|says that) the token in ")
_DAY = 86400
# Controls of their own have these parts of the agent's health
_JUDGED_ELSEWHERE = ("poll", "tracker")


def _agent(host: Host, expected: str, running: bool = True) -> Agent | Finding:
    """The agent, or why it is not to be judged here."""
    if host.agent is None:
        return unknown(expected, host.why("agent"))
    if not host.agent.installed:
        return not_applicable(expected, _NO_AGENT)
    if running and not host.agent.summary.get("running"):
        return not_applicable(expected, _STOPPED)
    return host.agent


def _poll_error(agent: Agent) -> str:
    return str(_components(agent).get("poll", {}).get("last_error") or "")


def _components(agent: Agent) -> Mapping[str, Mapping[str, Any]]:
    health = agent.answer.get("health") or {}
    return health.get("components") or {}


def unit(host: Host, wanted: Wanted) -> Finding:
    """The agent runs where it is asked for, and nowhere else."""
    expected = "the agent and the unit that applies for it are enabled and run"
    if host.agent is None or host.units is None:
        return unknown(expected, host.why("agent" if host.agent is None else "units"))
    if wanted.agent is False:
        there = host.agent.installed
        actual = "there is one" if there else "there is none"
        return judge(not there, "no poller agent", actual, wanted.rollout())
    if not host.agent.installed:
        if wanted.agent:
            return judge(False, expected, _NO_AGENT, wanted.rollout())
        return not_applicable(expected, _NO_AGENT)
    units = {name: host.units.get(name, UnitReading()) for name in STARTED}
    bad = [
        f"{name} is {one.state}" for name, one in units.items() if not (one.enabled and one.active)
    ]
    if not bad and host.agent.restart_due:
        return judge(
            False,
            expected,
            "it runs on what was there before the last rollout, which did not end",
            f"systemctl restart {UNIT}",
        )
    missing = any(not one.is_installed for one in units.values())
    enable = f"systemctl enable --now {' '.join(STARTED)}"
    return judge(
        not bad, expected, listed(bad) or "they are", wanted.rollout() if missing else enable
    )


def health(host: Host, _wanted: Wanted) -> Finding:
    """The running agent answers, and is well."""
    expected = "the agent says that it is well"
    agent = _agent(host, expected, running=False)
    if isinstance(agent, Finding):
        return agent
    if not agent.summary.get("running"):
        if host.units is not None and not host.units.get(UNIT, UnitReading()).active:
            return not_applicable(expected, "the agent does not run (agent.unit)")
        why = host.unread.get("answer") or str(agent.summary.get("error") or "it does not answer")
        fix = f"systemctl restart {UNIT}; `journalctl -u {UNIT}` says what it does"
        return judge(False, expected, why, fix)
    bad = [
        f"{name}: {part.get('last_error')}"
        for name, part in sorted(_components(agent).items())
        if not part.get("healthy") and name not in _JUDGED_ELSEWHERE
    ]
    return judge(
        not bad,
        expected,
        listed(bad) or "it is well",
        f"what the line says; `btfleet status` on the host shows it, `journalctl -u {UNIT}` more",
    )


def token(host: Host, wanted: Wanted) -> Finding:
    """The config service takes the host's token."""
    expected = "the config service takes the host's token"
    agent = _agent(host, expected)
    if isinstance(agent, Finding):
        return agent
    error = _poll_error(agent)
    return judge(
        not _REFUSED.search(error),
        expected,
        error if _REFUSED.search(error) else "no poll was refused for it",
        "set conntracker_agent_token to the token whose hash the config service has "
        f"(config_service_tokens), then {wanted.rollout()}",
    )


def token_age(host: Host, wanted: Wanted) -> Finding:
    """Tokens are changed now and then."""
    limit = wanted.limits.token_days
    expected = f"the token is at most {limit} days old"
    agent = _agent(host, expected, running=False)
    if isinstance(agent, Finding):
        return agent
    if agent.token_changed_at is None:
        return not_applicable(expected, "there is no token (agent.health)")
    days = (host.now - agent.token_changed_at) / _DAY
    return judge(
        days <= limit,
        expected,
        f"{max(days, 0):.0f} days",
        "make a new token, let the config service have both hashes for a while "
        f"(config_service_tokens), set conntracker_agent_token, then {wanted.rollout()}",
    )


def certificates(host: Host, wanted: Wanted) -> Finding:
    """CA and client certificate are good for a while yet."""
    limit = wanted.limits.certificate_days
    expected = f"CA and client certificate are good for {limit} more days"
    agent = _agent(host, expected, running=False)
    if isinstance(agent, Finding):
        return agent
    bad = [host.unread[path] for path in sorted(host.unread) if path.startswith("/")]
    shown = []
    for path, validities in sorted(agent.certificates.items()):
        # While a CA is replaced there are two: the newer one counts
        ends = max(one.ends for one in validities)
        line = f"{path} is good until {_date(ends)}"
        shown.append(line)
        if (ends - host.now) / _DAY < limit:
            bad.append(line)
    return judge(
        not bad,
        expected,
        listed(bad or shown),
        f"set conntracker_agent_ca (or replace the client certificate), then {wanted.rollout()}",
    )


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def poll_age(host: Host, wanted: Wanted) -> Finding:
    """The last poll that succeeded is not long ago."""
    expected = "the last successful poll is not long ago"
    agent = _agent(host, expected)
    if isinstance(agent, Finding):
        return agent
    if agent.summary.get("polling_ended"):
        return not_applicable(expected, "the service has remote config switched off")
    error = _poll_error(agent)
    if _REFUSED.search(error):
        return not_applicable(expected, "the token is refused (agent.token)")
    interval = float(agent.answer.get("poll_interval_seconds") or 0)
    limit = max(wanted.limits.poll_age_seconds, 3 * interval)
    age = agent.summary.get("age_seconds")
    actual = "no poll has succeeded yet" if age is None else f"{age} s"
    return judge(
        age is not None and age <= limit,
        f"at most {limit:g} s",
        f"{actual} ({error})" if error else actual,
        f"look at the config service {agent.summary.get('service')} and the way to it; "
        f"`journalctl -u {UNIT}` says how polls fail",
    )


def agreed(host: Host, _wanted: Wanted) -> Finding:
    """What is published for the host is received, applied and in force."""
    expected = "all configs published for the host are in force, and no others"
    agent = _agent(host, expected)
    if isinstance(agent, Finding):
        return agent
    if "configs" in host.unread:
        return unknown(expected, host.why("configs"), "systemctl restart btfleet-agent.service")
    found = list(agent.disagreements)
    return judge(
        not found,
        expected,
        listed(found) or "they are",
        "what the line says: publish another config (btfleet.conntrack.publish), or allow its keys "
        "(btfleet_remote_config_keys)",
    )


def remote_keys(host: Host, wanted: Wanted) -> Finding:
    """Remote config may override what the inventory says, and nothing else."""
    expected = "remote config may override the keys that the inventory allows"
    if host.tracker is None or "spec" in host.unread:
        return unknown(expected, host.why("tracker" if host.tracker is None else "spec"))
    if wanted.remote_keys is None:
        return not_applicable(expected, "the caller has not said which ones")
    found, asked = host.tracker.allowed, set(wanted.remote_keys)
    other = [f"{key} is allowed" for key in sorted(found - asked)]
    other += [f"{key} is not allowed" for key in sorted(asked - found)]
    return judge(not other, expected, listed(other) or f"{len(asked)} keys", wanted.rollout())


def clock_offset(host: Host, wanted: Wanted) -> Finding:
    """Its clock says the same as the control node's."""
    limit = wanted.limits.clock_seconds
    expected = f"the clock is within {limit:g} s of the control node's"
    if wanted.control_time is None:
        return not_applicable(expected, "the caller has not said what time it is")
    # The way to the host takes its time: `catalogue.settle_clock` takes that out again
    offset = host.now - wanted.control_time
    return judge(
        abs(offset) <= limit,
        expected,
        offset_text(offset),
        "set the clock, and have a time service keep it: `timedatectl set-ntp true`, "
        "`chronyc makestep`, or `date --set`",
    )


def offset_text(offset: float) -> str:
    """In words."""
    return f"{abs(offset):.3g} s {'behind' if offset < 0 else 'ahead'}"


def nearest_offset(host_time: float, earliest: float, latest: float) -> float:
    """The least offset that a host's clock can have which said `host_time` somewhen in between."""
    low, high = host_time - latest, host_time - earliest
    return 0.0 if low <= 0 <= high else min(low, high, key=abs)


def clock_synchronised(host: Host, wanted: Wanted) -> Finding:
    """Something keeps the clock right."""
    expected = "a time service keeps the clock"
    if not wanted.time_sync:
        return not_applicable(expected, "it is not asked for")
    if host.clock is None:
        return unknown(expected, host.why("clock"))
    keeps = host.clock.synchronised
    error = f"at most {host.clock.max_error_seconds:.3g} s wrong, by the kernel's count"
    return judge(
        keeps,
        expected,
        error if keeps else "the kernel knows of none",
        "run one: `timedatectl set-ntp true`, or install chrony",
    )


CONTROLS = (
    Control("agent.unit", "The poller agent runs", HIGH, PLATFORM, unit),
    Control("agent.health", "The poller agent is well", HIGH, PLATFORM, health),
    Control("agent.token", "The host's token is taken", HIGH, SECURITY, token),
    Control("agent.token_age", "The host's token is not too old", MEDIUM, SECURITY, token_age),
    Control("agent.certificates", "Certificates are good for long", HIGH, SECURITY, certificates),
    Control("agent.poll_age", "Polls succeed", MEDIUM, NETWORK, poll_age),
    Control("config.agreed", "What is published is in force", HIGH, NETWORK, agreed),
    Control("config.allowed", "Remote config has its keys alone", HIGH, SECURITY, remote_keys),
    Control("clock.offset", "The clock is right", HIGH, PLATFORM, clock_offset),
    Control("clock.synchronised", "The clock is kept right", LOW, PLATFORM, clock_synchronised),
)
