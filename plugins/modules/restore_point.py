#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_point
short_description: Returns a host to a state that is known to have worked
version_added: 0.1.0
description:
  - A restore point has a host's release, object, spec, and the poller agent's files.
    M(btfleet.conntrack.rollout_gate) records the state of each host that passes.
  - The way back takes the same steps as the modules of the rollout, so the tracker's entries are
    kept, and connections are tracked all the time.
author:
  - btfleet contributors (@btfleet)
options:
  state:
    description:
      - V(recorded) makes sure that there is a way back before anything is changed. A host that has
        passed a gate has one. Else the state that it has now is recorded, if it is well; that of a
        fresh host is that nothing is installed.
      - V(restored) returns to it, or to a former O(release).
    type: str
    choices: [recorded, restored]
    required: true
  release:
    description:
      - For a rollback, the release to return to, or V(previous). It brings the object, the spec and
        the agent's settings that it has passed with, if they are known; the agent's token and
        certificates stay.
      - Without it, O(state=restored) returns to where the host last was well.
    type: str
  reason:
    description: Why the host has to return, kept in C(/var/lib/btfleet/rollout.json).
    type: str
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows tracker, release and agent, before and after; never the token.
    support: full
seealso:
  - module: btfleet.conntrack.rollout_gate
  - module: btfleet.conntrack.release
notes:
  - Has to run as root.
  - Restore points lie in C(/var/lib/btfleet/restore_points.json), which only root may read. The
    release and the object that they need are kept.
"""

EXAMPLES = r"""
- name: Have a way back
  btfleet.conntrack.restore_point:
    state: recorded

- name: Take it
  btfleet.conntrack.restore_point:
    state: restored
    reason: the poller agent does not start

- name: Go back to the release before
  btfleet.conntrack.restore_point:
    state: restored
    release: previous
"""

RETURN = r"""
restore_point:
  description:
    - The state to return to, or the one that was returned to, in words. Null if there is none.
  type: str
  returned: success
  sample: release 0.1.0-1f0c2a77c0de, object 3b0c44298fc1, no poller agent
release:
  description: The release of it, null if it has none.
  type: str
  returned: for O(state=restored)
agent:
  description: Whether the poller agent is part of it.
  type: bool
  returned: for O(state=restored)
releases:
  description: The releases that are kept on the host, newest first.
  type: list
  elements: str
  returned: for O(state=restored)
unfit:
  description: Why the state that the host has now is none to return to, null if it is.
  type: str
  returned: for O(state=recorded)
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import TrackerError
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import (
    journal,
    observe,
    points,
    present,
    way_back,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.gate import Expected
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.journal import (
    FAILED,
    Outcome,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.points import RestorePoint
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout.present import Host

# Seconds for an agent that was restarted to answer
_PATIENCE = 30


def recorded(module: AnsibleModule, host: Host) -> dict[str, object]:
    """Records the state now where nothing is recorded yet, unless in check mode."""
    former = journal.read_points(host.tracker.store)
    if former:
        return {"changed": False, "restore_point": former[0].describe(), "unfit": None}
    now = present.read(host)
    unfit = present.why_unfit(now)
    if unfit:
        return {"changed": False, "restore_point": None, "unfit": unfit}
    point = present.as_point(host, now, int(time.time()))
    if not module.check_mode:
        journal.write_points(host.tracker.store, [point])
    return {
        "changed": True,
        "restore_point": point.describe(),
        "unfit": None,
        "diff": {"before": {}, "after": point.to_public()},
    }


def restored(module: AnsibleModule, host: Host) -> dict[str, object]:
    """Returns to a point unless in check mode; raises HostError and TrackerError."""
    store, wanted, reason = host.tracker.store, module.params["release"], module.params["reason"]
    former = journal.read_points(store)
    now = present.read(host)
    here = present.as_point(host, now, int(time.time()))
    if module.check_mode and not former and wanted is None:
        former = [here]  # a dry run has recorded nothing
    try:
        point = points.choose(former, wanted, now.release.releases, here)
        steps = way_back.reach(host, point, points.pinned_objects(former), module.check_mode)
        if not module.check_mode:
            if not journal.read_points(store):  # they have gone with the tracker
                journal.write_points(store, former)
            _verify(host, point)
    except (HostError, TrackerError) as exc:
        if not module.check_mode and reason:
            journal.write_outcome(
                store, Outcome(FAILED, here.release, reason, None, int(time.time()))
            )
        raise HostError(f"there is no way back: {exc}") from None
    if not module.check_mode and reason:
        outcome = Outcome(FAILED, point.release, reason, point.describe(), int(time.time()))
        journal.write_outcome(store, outcome)
    return {
        "changed": bool(steps),
        "restore_point": point.describe(),
        "release": point.release,
        "agent": point.agent is not None,
        "releases": list(now.release.releases),
        "diff": [
            {
                "before_header": step.part,
                "after_header": step.part,
                "before": step.before,
                "after": step.after,
            }
            for step in steps
        ],
    }


def _verify(host: Host, point: RestorePoint) -> None:
    """Raises HostError unless it runs. Config is not its business: the same may fail as before."""
    if point.tracker is None or not point.tracker.loaded:
        return
    expected = Expected(agent=point.agent is not None, polling=False, configs=False)
    _reading, wrong = observe.settle(host, expected, _PATIENCE)
    if wrong:
        raise HostError(f"returned to {point.describe()}, but {'; '.join(wrong)}")


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "restored"], "required": True},
            "release": {"type": "str"},
            "reason": {"type": "str"},
        },
        supports_check_mode=True,
    )
    action = restored if module.params["state"] == "restored" else recorded
    try:
        result = action(module, Host.of(runner(module)))
    except (HostError, TrackerError) as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
