#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Installs a release of the btfleet command and its boot unit
version_added: 0.1.0
description:
  - Unpacks a release archive beside those that are there, and switches to it in one step.
  - Keeps the command C(btfleet) in place, as C(/usr/local/bin/btfleet). Where that folder is on a
    read-only file system, the command is C(/opt/btfleet/current/bin/btfleet) alone.
  - Keeps the unit C(btfleet-conntracker.service), which loads the tracker at boot, enabled and
    started.
  - Needs no pip, package index or compiler on the host. What the poller agent and the config
    service need besides (O(dependencies)) is put together on the control node, once for each Python
    version and architecture, against a list of hashes, and kept in the user's cache folder.
author:
  - btfleet contributors (@btfleet)
options:
  state:
    description:
      - V(present) makes the release the current one.
      - V(absent) takes away all releases, the command and the unit. The tracker itself is the
        business of M(btfleet.conntrack.conntrack_object).
    type: str
    choices: [present, absent]
    default: present
  src:
    description: The archive on the control node. Without it, the collection's own is taken.
    type: path
  keep:
    description: How many former releases are kept beside the current one.
    type: int
    default: 2
  dependencies:
    description:
      - Whether the release comes with what the poller agent and the config service need.
      - Without this option it does where the current one does.
    type: bool
  interpreter:
    description: The Python on the host that runs a release with dependencies, 3.10 or newer.
    type: path
    default: /usr/bin/python3
  pip_arguments:
    description:
      - Further arguments for C(pip download) on the control node, where the packages are not to be
        had from the index that pip is set up for, for example V(--no-index) and
        V(--find-links=/srv/wheels).
      - Passwords belong into pip's own configuration, not here.
    type: list
    elements: str
    default: []
  archives:
    description:
      - A folder on the control node with archives that were built elsewhere, that is a copy of a
        cache folder (C(~/.cache/btfleet/trees)). Where it has the right one, nothing is built.
    type: path
  _sha256:
    description: Set by the action plugin. Digest of the release archive.
    type: str
  _version:
    description: Set by the action plugin. Version of the release archive.
    type: str
  _archive:
    description: Set by the action plugin. Where the archive lies on the host.
    type: path
  _archive_sha256:
    description: Set by the action plugin. Digest of the archive on the host.
    type: str
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows releases, links and the unit, before and after.
    support: full
seealso:
  - module: btfleet.conntrack.conntrack_object
  - module: btfleet.conntrack.poller_agent
notes:
  - Has to run as root, on a host with systemd.
  - Releases lie in C(/opt/btfleet/releases); C(/opt/btfleet/current) is the link to the one in use.
"""

EXAMPLES = r"""
- name: Install the collection's own release
  btfleet.conntrack.release:

- name: With what the config service needs
  btfleet.conntrack.release:
    dependencies: true

- name: Take it away
  btfleet.conntrack.release:
    state: absent
"""

RETURN = r"""
current:
  description:
    - The release in use. Its name has the version and the start of the archive's digest, and the
      Python and architecture that its dependencies are for, if it has any.
  type: str
  returned: for O(state=present)
  sample: 0.1.0-1f0c2a77c0de
releases:
  description: All kept releases.
  type: list
  elements: str
  returned: success
agent:
  description: Whether the poller agent's unit is on the host.
  type: bool
  returned: success
needs_archive:
  description: For the action plugin. The archive has to be sent before anything can be done.
  type: bool
  returned: when the release is not on the host
python:
  description: For the action plugin. The Python that the dependencies have to be for.
  type: dict
  returned: when the release is not on the host
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    config_service,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release,
    release_choice,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    INTERPRETER,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import ReleaseError
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release_choice import Offer
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import journal, points


def absent(module: AnsibleModule, layout: release.Layout) -> dict[str, object]:
    """Removes it all unless in check mode; but for what the config service runs."""
    before = release.read(layout, runner(module))
    after = release.plan_removal(before, in_use=config_service.is_installed(layout.units))
    if before != after and not module.check_mode:
        release.remove(layout, runner(module), before, after)
    return {
        "changed": before != after,
        "releases": list(after.releases),
        "diff": difference(before, after),
    }


def present(module: AnsibleModule, layout: release.Layout) -> dict[str, object]:
    """Installs and switches unless in check mode."""
    params = module.params
    offer = Offer(*(params[f"_{name}"] for name in Offer._fields))
    before = release.read(layout, runner(module))
    choice = release_choice.choose(
        offer, before.current, params["dependencies"], runner(module), params["interpreter"]
    )
    name = choice.name
    if name not in before.releases and not module.check_mode:
        if offer.archive is None:
            return choice.request()
        release_choice.unpack(layout, runner(module), offer, choice)
    units = release.packed_units(layout, name)
    pinned = points.pinned_releases(journal.read_points(Store()))
    after = release.plan(before, name, params["keep"], units, pinned=pinned)
    if before != after and not module.check_mode:
        release.reach(layout, runner(module), before, after)
    for warning in release.warnings(layout, after):
        module.warn(warning)
    return {
        "changed": before != after,
        "current": name,
        "releases": list(after.releases),
        "diff": difference(before, after),
    }


def difference(before: release.State, after: release.State) -> dict[str, object]:
    """Ansible's form of a diff."""
    return {"before": before.to_dict(), "after": after.to_dict()}


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "src": {"type": "path"},
            "keep": {"type": "int", "default": 2},
            "dependencies": {"type": "bool"},
            "interpreter": {"type": "path", "default": INTERPRETER},
            "pip_arguments": {"type": "list", "elements": "str", "default": []},
            "archives": {"type": "path"},
            "_sha256": {"type": "str"},
            "_version": {"type": "str"},
            "_archive": {"type": "path"},
            "_archive_sha256": {"type": "str"},
        },
        supports_check_mode=True,
    )
    action = absent if module.params["state"] == "absent" else present
    try:
        if module.params["keep"] < 0:
            raise ReleaseError(f"keep is {module.params['keep']}, needed: 0 or more")
        result = action(module, release.Layout())
        result["agent"] = os.path.lexists(os.path.join(release.Layout().units, poller_agent.UNIT))
    except HostError as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
