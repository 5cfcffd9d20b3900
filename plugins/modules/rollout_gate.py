#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_gate
short_description: Says whether a host is well after a rollout, and stays so
version_added: 0.1.0
description:
  - Waits until the tracker is as it was loaded, the units run, and, with O(agent=true), the poller
    agent has reached the config service and has in force what was published for the host.
  - Then watches the host for O(soak_seconds). No unit may be restarted, no load fail, no counter of
    errors rise; and where the kernel's table of flows changes, the programs have to see it.
  - A host that passes has its state recorded as the one to return to
    (M(btfleet.conntrack.restore_point)). Where nothing was changed since it passed, it is read once
    and not watched again.
author:
  - btfleet contributors (@btfleet)
options:
  agent:
    description: Whether the poller agent has to run.
    type: bool
    default: false
  require_polling:
    description:
      - Whether the poller agent has to have reached the config service, without an error since.
      - Set it to V(false) where the service comes later than the agents.
    type: bool
    default: true
  fingerprint:
    description:
      - The fingerprint that was asked for, as M(btfleet.conntrack.conntrack_object) returns it.
      - Without it any spec will do.
    type: str
  changed:
    description: Whether this rollout has changed anything on the host, which then is watched.
    type: bool
    default: false
  settle_seconds:
    description: How long to wait until the host is well.
    type: int
    default: 60
  soak_seconds:
    description: How long to watch it then.
    type: int
    default: 30
  keep:
    description: How many former releases are kept beside the current one.
    type: int
    default: 2
attributes:
  check_mode:
    description:
      - Reads the host once and changes nothing. What is wrong fails the task, unless with
        O(changed=true) there is more to come, which may put it right.
    support: full
  diff_mode:
    description: Shows the state to return to, before and after, without the content of files.
    support: full
seealso:
  - module: btfleet.conntrack.restore_point
  - module: btfleet.conntrack.conntrack_info
  - module: btfleet.conntrack.config_state_info
notes:
  - Has to run as root.
  - How it ended is left in C(/var/lib/btfleet/rollout.json).
"""

EXAMPLES = r"""
- name: Load the object
  btfleet.conntrack.conntrack_object:
  register: loaded

- name: Watch the host for a minute if anything was changed
  btfleet.conntrack.rollout_gate:
    fingerprint: "{{ loaded.fingerprint }}"
    changed: "{{ loaded is changed }}"
    soak_seconds: 60
"""

RETURN = r"""
passed:
  description: Whether the host is well. In check mode, whether nothing is known to be wrong.
  type: bool
  returned: always
reasons:
  description: A line for each thing that is wrong.
  type: list
  elements: str
  returned: always
soaked:
  description: Whether the host was watched.
  type: bool
  returned: always
restore_point:
  description: The state to return to from now on, in words.
  type: str
  returned: when the host has passed
  sample: release 0.1.0-1f0c2a77c0de, object 3b0c44298fc1, no poller agent
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import manage
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import TrackerError
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import (
    gate,
    journal,
    observe,
    points,
    present,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.gate import Expected
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.journal import (
    PASSED,
    Outcome,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.points import (
    Points,
    RestorePoint,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.present import (
    Host,
    Present,
)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Reads, waits and watches; records the state if it is good."""
    params = module.params
    host = Host.of(runner(module))
    expected = Expected(params["agent"], params["require_polling"], params["fingerprint"])
    now = present.read(host)
    point = present.as_point(host, now, int(time.time()))
    former = journal.read_points(host.tracker.store)
    is_new = not (former and former[0].same(point)) or not _has_passed(host)
    if module.check_mode:
        return _predict(host, expected, params["changed"], is_new, (former, point))
    reading, reasons = observe.settle(host, expected, params["settle_seconds"])
    soaked = not reasons and (is_new or params["changed"])
    if soaked:
        time.sleep(params["soak_seconds"])
        later = observe.read(host, expected.agent)
        reasons = gate.problems(later, expected) + gate.worsened(reading, later)
    result = {"changed": False, "passed": not reasons, "reasons": reasons, "soaked": soaked}
    if reasons:
        return result
    if is_new:
        record(host, points.passed(former, point, params["keep"]), now, params["keep"])
    return {**result, "changed": is_new, **_shown(former, point)}


def _has_passed(host: Host) -> bool:
    outcome = journal.read_outcome(host.tracker.store)
    return outcome is not None and outcome.outcome == PASSED


def _predict(
    host: Host, expected: Expected, changed: bool, is_new: bool, shown: tuple[Points, RestorePoint]
) -> dict[str, Any]:
    """For a dry run. Before a change, neither the state nor what is wrong with it is the last."""
    reasons = []
    if not changed:
        reasons = gate.problems(observe.read(host, expected.agent), expected)
    result = {"changed": False, "passed": not reasons, "reasons": reasons, "soaked": False}
    if reasons:
        return result
    return {**result, "changed": changed or is_new, **({} if changed else _shown(*shown))}


def _shown(former: Points, point: RestorePoint) -> dict[str, object]:
    before = former[0].to_public() if former else {}
    return {
        "restore_point": point.describe(),
        "diff": {"before": before, "after": point.to_public()},
    }


def record(host: Host, found: Points, now: Present, keep: int) -> None:
    """Keeps the points, says that the rollout has passed, and removes what nobody needs now."""
    store = host.tracker.store
    journal.write_points(store, found)
    journal.write_outcome(store, Outcome(PASSED, found[0].release, at=found[0].at))
    if now.release.current is not None:
        after = release.plan(now.release, now.release.current, keep, {}, boot=False)
        release.reach(host.releases, host.run, now.release, after)
    manage.prune(host.tracker, points.pinned_objects(found))


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "agent": {"type": "bool", "default": False},
            "require_polling": {"type": "bool", "default": True},
            "fingerprint": {"type": "str"},
            "changed": {"type": "bool", "default": False},
            "settle_seconds": {"type": "int", "default": 60},
            "soak_seconds": {"type": "int", "default": 30},
            "keep": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    try:
        for name in ("settle_seconds", "soak_seconds", "keep"):
            if module.params[name] < 0:
                raise HostError(f"{name} is {module.params[name]}, needed: 0 or more")
        result = run(module)
    except (HostError, TrackerError) as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    if not result["passed"]:
        reasons = "; ".join(map(str, result["reasons"]))
        module.fail_json(msg=f"the host is not well: {reasons}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
