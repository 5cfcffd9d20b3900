#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_state_info
short_description: Remote config of a host, published, received, applied and in force
version_added: 0.1.0
description:
  - Puts side by side, for each config, what was published, what the agent has received, how far it
    has come with it, and which values are in force, with owner and age.
  - A host without an agent, or with one that does not run, is a result and not a failure.
  - What is in force is read back from the kernel. What is published is what the director had signed
    when the agent last polled with success.
author:
  - btfleet contributors (@btfleet)
options: {}
attributes:
  check_mode:
    description: Changes nothing, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
seealso:
  - module: btfleet.conntrack.poller_agent
  - module: btfleet.conntrack.conntrack_info
  - module: btfleet.conntrack.remote_config
notes:
  - Has to run as root.
"""

EXAMPLES = r"""
- name: Whether what was published for this host is in force
  btfleet.conntrack.config_state_info:
  register: remote

- name: Stop where it is not
  ansible.builtin.assert:
    that: remote.agreed
    fail_msg: "{{ remote.disagreements | join('; ') }}"
"""

RETURN = r"""
agreed:
  description:
    - Whether a running agent has all configs in force that were published for this host, and no
      others.
  type: bool
  returned: success
disagreements:
  description: A line for each thing that is not so.
  type: list
  elements: str
  returned: success
agent:
  description:
    - The agent's state, with C(installed), C(running) and C(error); and, where it runs, C(healthy),
      C(version), C(service), C(root_version), C(targets_version), C(last_poll_at),
      C(last_success_at), C(age_seconds) (of the last success, so of all that is said to be
      published) and C(polling_ended). Times are Unix seconds.
  type: dict
  returned: success
expired:
  description: Whether the director has expired, so that no config is in force.
  type: bool
  returned: success
configs:
  description:
    - Each config that anything is known of, with C(path) and C(product).
    - C(published) has version, sha256, length, expires, predicates, and C(for_this_host); null if
      it is not published (any more).
    - C(received) has sha256, length and content of what the agent holds; null if it holds none.
    - C(applied) has version, sha256, phase (C(RECEIVED), C(APPLYING), C(APPLIED), C(FAILED)),
      reason, fingerprint, changed_at and age_seconds; null if the agent says nothing of it.
  type: list
  elements: dict
  returned: success
effective:
  description:
    - Each value in force, with C(key), C(value), C(owner) (C(base) or the path of a config; null
      where that cannot be told), C(base) (what Ansible deployed) and C(age_seconds) (since the
      load).
  type: list
  elements: dict
  returned: success
  sample:
    - key: CONNTRACK.udpv6_enabled
      value: false
      owner: btfleet/1/CONNTRACK/edge/no-udp6
      base: true
      age_seconds: 86
allowed:
  description: The keys that remote config may override on this host.
  type: list
  elements: str
  returned: success
loader:
  description:
    - What the loader made of the agent's last request, with C(state) (C(applied) or C(failed)),
      C(fingerprint), C(reason), C(at) and C(age_seconds). Null if there was none since boot.
  type: dict
  returned: success
unknown:
  description: What could not be read, and why; a line each.
  type: list
  elements: str
  returned: success
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import remote, status
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    agent_state,
    config_state,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.agent_state import (
    StateUnreadable,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner, runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import (
    InvalidSpec,
    TrackerError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release


def run(runner: Runner, now: int) -> dict[str, Any]:
    """Reads; what cannot be read is named in the result."""
    tracker, layout = Tracker(), poller_agent.Layout()
    unknown: list[str] = []
    settings = agent_state.read_settings(layout.file(poller_agent.SETTINGS))
    asked, problem = agent_state.ask(
        runner, os.path.join(release.Layout().current, "bin", "btfleet")
    )
    unknown += [problem] if problem else []
    agent = config_state.agent_summary(asked, now)
    folder = settings.get("state_folder") or layout.state
    stored = config_state.Stored()
    try:
        stored = agent_state.read_stored(os.path.join(folder, "state.db"))
        configs = config_state.configs(stored, config_state.Host.of(settings), now)
    except (StateUnreadable, ConfigError) as exc:
        unknown.append(str(exc))
        configs = []
    lines = config_state.disagreements(configs, stored.expired, now)
    if agent["installed"] and not agent["running"]:
        lines.insert(0, f"the agent: {agent['error']}")
    return {
        "changed": False,
        "agreed": agent["running"] and not lines and not unknown,
        "disagreements": lines,
        "agent": agent,
        "expired": stored.expired,
        "configs": configs,
        "effective": _effective(tracker, asked, now, unknown),
        "allowed": _allowed(tracker, unknown),
        "loader": _loader(tracker, now),
        "unknown": unknown,
    }


def _effective(tracker: Tracker, asked: Any, now: int, unknown: list[str]) -> list[dict[str, Any]]:
    state = status.read(tracker.active, tracker.store, fill=False)
    try:
        base = tracker.store.read_spec()
    except InvalidSpec as exc:
        unknown.append(str(exc))
        base = None
    return config_state.effective(
        state.record,
        state.owners,
        base.to_dict() if base else None,
        (asked or {}).get("effective") or [],
        now,
    )


def _allowed(tracker: Tracker, unknown: list[str]) -> list[str]:
    try:
        return sorted(remote.read_allowed(tracker.store))
    except InvalidSpec as exc:
        unknown.append(str(exc))
        return []


def _loader(tracker: Tracker, now: int) -> dict[str, Any] | None:
    answer = remote.read_answer(tracker.store)
    if answer is None:
        return None
    return {**answer._asdict(), "age_seconds": config_state.age(answer.at, now)}


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        result = run(runner(module), int(time.time()))
    except TrackerError as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
