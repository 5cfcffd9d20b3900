#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compliance_info
short_description: Verdict on a host, control by control
version_added: 0.1.0
description:
  - Reads kernel, tracker, release, units, files, poller agent, remote config and clock, each once,
    and judges them by a catalogue of controls (docs/compliance.md).
  - Changes nothing, and gives the same verdict with and without check mode. A host without a
    tracker or an agent is a result and not a failure.
author:
  - btfleet contributors (@btfleet)
options:
  host:
    description: The host's name in fixes and for waivers. Without it, the name in the inventory.
    type: str
  boot:
    description: Whether the tracker is to be loaded at boot, so that there has to be a release.
    type: bool
    default: true
  agent:
    description:
      - Whether there has to be a poller agent. Without it, the one that is there is judged.
    type: bool
  settings:
    description:
      - The settings of the spec that Ansible deploys. Those that are left out are not judged, nor
        is what remote config has decided.
    type: dict
    default: {}
    suboptions:
      tcpv6_enabled:
        description: Whether TCP over IPv6 has to be tracked.
        type: bool
      udpv6_enabled:
        description: Whether UDP over IPv6 has to be tracked.
        type: bool
      max_entries:
        description: The size that the map of live flows has to have.
        type: int
      closed_entries:
        description: The size that the map of closed flows has to have.
        type: int
      tiers:
        description: The tiers that have to be the allowed ones.
        type: list
        elements: str
      allow_fentry_deadlock:
        description: What has to be said of that risk.
        type: bool
      btf_path:
        description: The BTF file on the host that has to be in use.
        type: path
  remote_config_keys:
    description: What remote config may override. Without it, that is not judged.
    type: list
    elements: str
  src:
    description:
      - The release archive on the control node. Without it, the collection's own is what hosts
        have to have.
    type: path
  object:
    description:
      - An object file on the control node that hosts have to have, in place of the collection's
        own.
    type: path
  object_sha256:
    description:
      - The digest that the object has to have. Without it, that of the collection's own object for
        the host's architecture.
    type: str
  keep:
    description: How many former releases may be there.
    type: int
    default: 2
  time_sync:
    description: Whether a time service has to keep the clock.
    type: bool
    default: true
  control_time:
    description:
      - The control node's Unix time just before the host is asked. Without it, the action plugin
        takes it. Waivers expire by it too.
    type: float
  thresholds:
    description: Where a number stops being good.
    type: dict
    default: {}
    suboptions:
      live_fill_percent:
        description: Fill of the map of live flows.
        type: float
        default: 80
      closed_fill_percent:
        description: Fill of the map of closed flows, which forgets the oldest ones when it is full.
        type: float
        default: 95
      lost_percent:
        description: Flows that could not be stored or read.
        type: float
        default: 0.1
      missed_percent:
        description: Flows that the kernel passed over.
        type: float
        default: 0.1
      poll_age_seconds:
        description: Age of the last successful poll; three poll intervals are always let pass.
        type: int
        default: 300
      token_days:
        description: Age of the host's token.
        type: int
        default: 365
      certificate_days:
        description: How long CA and client certificate have to be good yet.
        type: int
        default: 30
      clock_seconds:
        description:
          - How far the clock may be from the control node's. The time that it takes to reach the
            host is taken out, unless O(control_time) is given.
        type: float
        default: 5
  waivers:
    description:
      - What somebody has taken on for a while. A waived control is reported as V(waived) with its
        waiver. A waiver that has expired does not waive, and is reported itself.
    type: list
    elements: dict
    default: []
    suboptions:
      control:
        description: The control's id.
        type: str
        required: true
      owner:
        description: Who answers for it.
        type: str
        required: true
      reason:
        description: Why.
        type: str
        required: true
      expires:
        description: The last day that it holds on, in UTC, for example V(2030-12-31).
        type: str
        required: true
      hosts:
        description: The hosts that it is for, as patterns of their names. Without it, all.
        type: list
        elements: str
        default: []
  _version:
    description: Set by the action plugin. Version of the release archive.
    type: str
  _sha256:
    description: Set by the action plugin. Digest of the release archive.
    type: str
  _objects:
    description: Set by the action plugin. Digests of the objects by architecture.
    type: dict
attributes:
  check_mode:
    description: Changes nothing, so check mode makes no difference.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
seealso:
  - module: btfleet.conntrack.compliance_report
  - module: btfleet.conntrack.config_state_info
  - module: btfleet.conntrack.conntrack_info
notes:
  - Has to run as root.
"""

EXAMPLES = r"""
- name: Judge a host
  btfleet.conntrack.compliance_info:
    agent: true
    settings:
      max_entries: 131072
  register: compliance

- name: Stop where it is not as it should be
  ansible.builtin.assert:
    that: compliance.compliant
    fail_msg: "{{ failed | map(attribute='fix') | join('; ') }}"
  vars:
    failed: "{{ compliance.controls | selectattr('status', 'equalto', 'fail') }}"

- name: With a waiver
  btfleet.conntrack.compliance_info:
    waivers:
      - control: clock.synchronised
        owner: jane@example.org
        reason: the site has no time server before the move
        expires: 2030-12-31
        hosts: [edge*]
"""

RETURN = r"""
compliant:
  description: Whether no control has failed, and none that was to be judged stayed unknown.
  type: bool
  returned: success
controls:
  description: The result of each control, in the catalogue's order.
  type: list
  elements: dict
  returned: success
  contains:
    id:
      description: The control.
      type: str
      returned: success
      sample: tracker.pins
    title:
      description: What it is about.
      type: str
      returned: success
    severity:
      description: V(high), V(medium) or V(low).
      type: str
      returned: success
    owner:
      description: Who puts it right, V(platform), V(network) or V(security).
      type: str
      returned: success
    status:
      description: V(pass), V(fail), V(unknown), V(waived) or V(not_applicable).
      type: str
      returned: success
    expected:
      description: What is needed.
      type: str
      returned: success
    actual:
      description: What was found.
      type: str
      returned: success
    fix:
      description: What to do. Empty where there is nothing to do.
      type: str
      returned: success
    waiver:
      description: The waiver for it, with C(expired). Null if there is none.
      type: dict
      returned: success
summary:
  description: How many controls came to which status.
  type: dict
  returned: success
  sample: {pass: 34, fail: 1, unknown: 0, waived: 0, not_applicable: 2}
agent:
  description:
    - What the poller agent says of remote config, to be compared with what the config service has
      heard, with C(running), C(host), C(root_version), C(targets_version) and C(configs) (C(path),
      C(version), C(phase)).
  type: dict
  returned: success
answered_at:
  description: The control node's clock when it had the answer, in Unix seconds.
  type: float
  returned: success
host_time:
  description: The host's clock when it was asked, in Unix seconds.
  type: float
  returned: success
seconds:
  description: How long reading and judging took on the host.
  type: float
  returned: success
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import (
    catalogue,
    waivers,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.gather import gather
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.host import Agent, said
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.wanted import (
    Limits,
    Wanted,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import InvalidSpec
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.object_choice import (
    ANY,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import ReleaseError


def wanted_of(params: dict[str, Any]) -> Wanted:
    """What the host is held against; raises ReleaseError and InvalidSpec."""
    objects, keys = params["_objects"] or {}, params["remote_config_keys"]
    if params["object_sha256"]:
        objects = {ANY: params["object_sha256"]}
    name = None
    if params["_version"] and params["_sha256"]:
        name = release.release_name(params["_version"], params["_sha256"])
    return Wanted(
        host=params["host"] or "HOST",
        release=name,
        objects=objects,
        boot=params["boot"],
        agent=params["agent"],
        settings=settings_of(params["settings"]),
        remote_keys=None if keys is None else tuple(keys),
        keep=params["keep"],
        time_sync=params["time_sync"],
        control_time=params["control_time"],
        limits=Limits(**params["thresholds"]),
    )


def settings_of(given: dict[str, Any]) -> dict[str, object]:
    """Those that were given, in the form that a spec has; raises InvalidSpec."""
    said = {key: value for key, value in given.items() if value is not None}
    spec = Spec.from_dict({"object_sha256": "0" * 64, **said}).to_dict()
    return {key: spec[key] for key in said}


def run(module: AnsibleModule) -> dict[str, object]:
    """Reads and judges; raises InvalidWaiver, InvalidSpec, ReleaseError, PermissionError."""
    params, now, started = module.params, time.time(), time.monotonic()
    wanted = wanted_of(params)
    given = waivers.parse(params["waivers"], catalogue.WAIVABLE)
    if os.geteuid() != 0:
        raise PermissionError("the tracker is root's to read")
    host = gather(runner(module), now)
    controls = catalogue.assess(host, wanted, given)
    return {
        "changed": False,
        "compliant": catalogue.is_compliant(controls),
        "controls": controls,
        "summary": catalogue.summary(controls),
        "agent": said(host.agent or Agent()),
        "host_time": now,
        "seconds": round(time.monotonic() - started, 3),
    }


def main() -> None:
    """Turns errors into one line."""
    number = {"type": "float"}
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str"},
            "boot": {"type": "bool", "default": True},
            "agent": {"type": "bool"},
            "settings": {
                "type": "dict",
                "default": {},
                "options": {
                    "tcpv6_enabled": {"type": "bool"},
                    "udpv6_enabled": {"type": "bool"},
                    "max_entries": {"type": "int"},
                    "closed_entries": {"type": "int"},
                    "tiers": {"type": "list", "elements": "str"},
                    "allow_fentry_deadlock": {"type": "bool"},
                    "btf_path": {"type": "path"},
                },
            },
            "remote_config_keys": {"type": "list", "elements": "str", "no_log": False},
            "src": {"type": "path"},
            "object": {"type": "path"},
            "object_sha256": {"type": "str"},
            "keep": {"type": "int", "default": 2},
            "time_sync": {"type": "bool", "default": True},
            "control_time": number,
            "thresholds": {
                "type": "dict",
                "default": {},
                "options": {
                    "live_fill_percent": {**number, "default": 80},
                    "closed_fill_percent": {**number, "default": 95},
                    "lost_percent": {**number, "default": 0.1},
                    "missed_percent": {**number, "default": 0.1},
                    "poll_age_seconds": {"type": "int", "default": 300},
                    "token_days": {"type": "int", "default": 365, "no_log": False},
                    "certificate_days": {"type": "int", "default": 30},
                    "clock_seconds": {**number, "default": 5},
                },
            },
            "waivers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "control": {"type": "str", "required": True},
                    "owner": {"type": "str", "required": True},
                    "reason": {"type": "str", "required": True},
                    "expires": {"type": "str", "required": True},
                    "hosts": {"type": "list", "elements": "str", "default": []},
                },
            },
            "_version": {"type": "str"},
            "_sha256": {"type": "str"},
            "_objects": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (waivers.InvalidWaiver, InvalidSpec, ReleaseError) as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
