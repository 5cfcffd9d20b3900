#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: conntrack_info
short_description: State, counters and translations of a host's connection tracker
version_added: 0.1.0
description:
  - Reads back what the kernel holds, and compares it with what was loaded.
  - Gives translations (original tuple to reply tuple), filtered, up to a limit.
  - A host without a tracker is a result and not a failure.
author:
  - btfleet contributors (@btfleet)
options:
  translations:
    description: Give translations as well.
    type: bool
    default: true
  states:
    description: Which flows, V(live), V(closed) or both.
    type: list
    elements: str
    choices: [live, closed]
    default: [live]
  netns:
    description: Only flows of this network namespace, by inode number.
    type: int
  address:
    description: Only flows with this address at either end, before or after translation.
    type: str
  port:
    description: Only flows with this port at either end, before or after translation.
    type: int
  protocol:
    description: Only flows of this protocol, by name or number.
    type: str
  limit:
    description: How many translations to give at most.
    type: int
    default: 1000
attributes:
  check_mode:
    description: Changes nothing, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
seealso:
  - module: btfleet.conntrack.conntrack_object
notes:
  - Has to run as root.
"""

EXAMPLES = r"""
- name: What a client's connections really are
  btfleet.conntrack.conntrack_info:
    address: 192.0.2.17
    protocol: tcp
    states: [live, closed]
  register: tracker

- name: Counters alone
  btfleet.conntrack.conntrack_info:
    translations: false
"""

RETURN = r"""
loaded:
  description: Whether a tracker is loaded.
  type: bool
  returned: success
healthy:
  description: Whether it is loaded, as it was loaded, and the flows of all namespaces are seen.
  type: bool
  returned: success
drift:
  description: What is not as it was loaded.
  type: list
  elements: str
  returned: success
record:
  description: What the loader recorded, with spec, fingerprint, tier, and ids. Null if not loaded.
  type: dict
  returned: success
degraded:
  description: Why the tier is V(netlink) and no better one. Null with any other tier.
  type: str
  returned: success
follower:
  description:
    - With tier V(netlink), the process that follows conntrack events, with C(alive), C(pid), and
      how many C(namespaces) it follows and does not follow (C(unfollowed)), C(events) and
      C(overruns) it had, C(comparisons) with the kernel's table it made, and entries it C(repaired)
      by them.
    - Of those that it does not follow, C(no_descriptor) are more than it may open files for and
      C(no_entry) cannot be entered; C(unfollowed_inode) is one of them. C(no_events) is how many
      send no events, C(silent_inode) is one of these; their flows are found by comparison alone.
    - Null with any other tier.
  type: dict
  returned: success
reconciled:
  description:
    - What the last reconciliation with the kernel's own table found. C(at) (Unix seconds, of the
      load if there was none since), C(seconds), C(why), entries C(added) and C(removed),
      C(added_ever) and C(removed_ever) by all C(runs) since the load, C(error) if it failed.
    - Null with tier V(netlink), whose process compares by itself, and if nothing is loaded.
  type: dict
  returned: success
unseen:
  description: Which flows are not seen, a line for each reason. Empty but with tier V(netlink).
  type: list
  elements: str
  returned: success
owners:
  description:
    - Who decided each setting of the spec in force, V(base) (deployed by Ansible) or the path of a
      config of remote config. Null where neither has this value.
  type: dict
  returned: success
counters:
  description:
    - Counters of the programs, summed over all CPUs.
    - C(insert_missed), C(delete_missed) and C(netns_end_missed) have how often the kernel passed
      over a program because its CPU was busy with another one. Kernels count that from 5.12 on for
      tier V(core/fentry), from 6.7 on for V(core/kprobe).
  type: dict
  returned: success
maps:
  description: For each map, C(max_entries) and, with O(translations=true), C(entries).
  type: dict
  returned: success
load_results:
  description: How often which load came to which result on this host.
  type: list
  elements: dict
  returned: success
translations:
  description:
    - The flows. One with state V(closed) has ended C(closed_seconds_ago) seconds ago, and no
      translated flow has its tuple now. Its C(netns_gone) is true if its network namespace is gone
      as well, whoever has the number now.
  type: list
  elements: dict
  returned: with O(translations=true)
  sample:
    - netns: 4026531840
      zone: 0
      family: ipv4
      protocol: tcp
      orig: {src: 10.0.0.2, sport: 40000, dst: 192.0.2.1, dport: 80}
      reply: {src: 192.0.2.1, sport: 80, dst: 203.0.113.1, dport: 40000}
      state: live
truncated:
  description: Whether there are more flows than O(limit).
  type: bool
  returned: with O(translations=true)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import status
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.conntrack import (
    reading,
    table,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import TrackerError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Reads; raises TrackerError for a filter that cannot be."""
    tracker = Tracker()
    wanted = table.Filter.parse(
        params["netns"], params["address"], params["port"], params["protocol"]
    )
    if params["limit"] < 0:
        raise TrackerError(f"limit is {params['limit']}, needed: 0 or more")
    now = status.read(tracker.active, tracker.store, fill=params["translations"])
    result = {"changed": False, **now.to_dict()}
    if params["translations"]:
        pinned = tracker.pins.names()
        present = [state for state in params["states"] if reading.MAPS[state] in pinned]
        found = (flow for state in present for flow in reading.flows(tracker.pins, state, wanted))
        rows, more = table.translations(found, params["limit"])
        result.update(translations=rows, truncated=more)
    return result


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "translations": {"type": "bool", "default": True},
            "states": {
                "type": "list",
                "elements": "str",
                "choices": ["live", "closed"],
                "default": ["live"],
            },
            "netns": {"type": "int"},
            "address": {"type": "str"},
            "port": {"type": "int"},
            "protocol": {"type": "str"},
            "limit": {"type": "int", "default": 1000},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params)
    except TrackerError as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
