#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: poller_agent
short_description: Installs the agent that polls the config service for signed config
version_added: 0.1.0
description:
  - Installs the release with all that the agent needs beside those that are there, and switches to
    it in one step, as M(btfleet.conntrack.release) does, with the same boot unit.
  - Writes the agent's settings and secrets, makes the user and group C(btfleet) that it runs as,
    and keeps its units enabled and started.
  - The agent is restarted only for another release, unit or settings. Another token, CA or director
    root it reads by itself.
  - Needs no pip, package index or compiler on the host, but Python 3.10 and glibc 2.28, or newer.
author:
  - btfleet contributors (@btfleet)
options:
  state:
    description:
      - V(present) makes the agent run.
      - V(absent) takes away the agent with its files, state and account, and has the loader bring
        the spec back into force that Ansible deployed. The release stays, since the boot unit runs
        it; M(btfleet.conntrack.release) takes it away.
    type: str
    choices: [present, absent]
    default: present
  service:
    description: C(HOST:PORT) of the config service. Required for O(state=present).
    type: str
  host:
    description:
      - The host's name in the fleet, which its token was made for.
      - Without it, the name in the inventory.
    type: str
  token:
    description:
      - The host's token for the config service, 16 or more printable characters.
      - Without it the one on the host stays.
    type: str
  ca:
    description:
      - File on the control node with the certificates that the service's is checked against (PEM).
      - Without it the one on the host stays.
    type: path
  director_root:
    description:
      - File on the control node with the director's first root, where trust starts
        (C(1.root.json)).
      - Without it the one on the host stays.
    type: path
  tls_server_name:
    description: The name in the service's certificate, if it is not the one in O(service).
    type: str
  client_certificate:
    description: File on the host, for mutual TLS. The group C(btfleet) has to be able to read it.
    type: path
  client_key:
    description: File on the host, for mutual TLS. The group C(btfleet) has to be able to read it.
    type: path
  org:
    description: The organisation whose configs the agent takes.
    type: int
  groups:
    description: Names of groups that the host is in, for the predicates of configs.
    type: list
    elements: str
  labels:
    description: The host's labels, for the predicates of configs.
    type: dict
  products:
    description: The products that the agent asks for.
    type: list
    elements: str
    choices: [CONNTRACK, AGENT]
  poll_interval_seconds:
    description: Seconds between polls, 1 to 3600.
    type: int
  log_level:
    description: What the agent logs.
    type: str
    choices: [debug, info, warning, error]
  metrics:
    description: Whether the agent gives Prometheus metrics.
    type: bool
  metrics_listen:
    description: C(ADDRESS:PORT) of the metrics.
    type: str
  src:
    description: The release archive on the control node. Without it, the collection's own is taken.
    type: path
  keep:
    description: How many former releases are kept beside the current one.
    type: int
    default: 2
  interpreter:
    description: The Python on the host that runs the release, 3.10 or newer.
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
  _ca:
    description: Set by the action plugin. Content of O(ca).
    type: str
  _director_root:
    description: Set by the action plugin. Content of O(director_root).
    type: str
attributes:
  check_mode:
    description: Says what would change, and fails where the host cannot run the agent.
    support: full
  diff_mode:
    description: Shows release, files, units and account, before and after; never the token.
    support: full
seealso:
  - module: btfleet.conntrack.release
  - module: btfleet.conntrack.conntrack_object
  - module: btfleet.conntrack.config_state_info
notes:
  - Has to run as root, on a host with systemd.
  - Settings that are not given are left to the agent's own defaults (docs/remote-config.md).
  - What remote config may override on the host is said to M(btfleet.conntrack.conntrack_object).
"""

EXAMPLES = r"""
- name: Poll the config service, with a token that is made once for each host and kept in a vault
  btfleet.conntrack.poller_agent:
    service: config.example.org:8443
    token: "{{ vault_btfleet_tokens[inventory_hostname] }}"
    ca: files/config-service-ca.pem
    director_root: files/director/1.root.json
    groups: "{{ group_names }}"
    labels:
      site: ber1

- name: Where the control node reaches no package index
  btfleet.conntrack.poller_agent:
    service: config.example.org:8443
    pip_arguments:
      - --no-index
      - --find-links=/srv/wheels

- name: Take the agent away
  btfleet.conntrack.poller_agent:
    state: absent
"""

RETURN = r"""
current:
  description: The release in use.
  type: str
  returned: for O(state=present)
  sample: 0.1.0-1f0c2a77c0de-cp311-x86_64-1
releases:
  description: All kept releases.
  type: list
  elements: str
  returned: for O(state=present)
restarted:
  description: Whether the running agent was restarted, or would be.
  type: bool
  returned: for O(state=present)
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
    agent_files,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    file_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.errors import TrackerError
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release,
    release_choice,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    INTERPRETER,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release_choice import Offer
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import journal, points


def absent(module: AnsibleModule) -> dict[str, object]:
    """Removes the agent unless in check mode."""
    layout = poller_agent.Layout()
    before, after = poller_agent.read(layout, runner(module)), poller_agent.State()
    if before != after and not module.check_mode:
        poller_agent.remove(layout, runner(module))
    shown = poller_agent.difference(before, after)
    return {"changed": before != after, "diff": {"before": shown[0], "after": shown[1]}}


def present(module: AnsibleModule) -> dict[str, object]:
    """Installs, writes, switches and starts unless in check mode."""
    params, run = module.params, runner(module)
    contents = agent_files.contents(
        params, params["token"], params["_ca"], params["_director_root"]
    )
    offer = Offer(*(params[f"_{name}"] for name in Offer._fields))
    releases, layout = release.Layout(), poller_agent.Layout()
    release_before = release.read(releases, run)
    choice = release_choice.choose(offer, release_before.current, True, run, params["interpreter"])
    before = poller_agent.read(layout, run)
    # What is missing is said before anything is sent
    poller_agent.plan(before, contents, {})
    if choice.name not in release_before.releases and not module.check_mode:
        if offer.archive is None:
            return choice.request()
        release_choice.unpack(releases, run, offer, choice)

    def packed(unit: str) -> str | None:
        return file_digest(release.packed_unit(releases, choice.name, unit))

    units = {unit: packed(unit) for unit in poller_agent.UNITS}
    pinned = points.pinned_releases(journal.read_points(Store()))
    packed_units = release.packed_units(releases, choice.name)
    release_after = release.plan(
        release_before, choice.name, params["keep"], packed_units, pinned=pinned
    )
    after = poller_agent.plan(before, contents, units)
    if os.path.isdir(releases.folder(choice.name)):  # else this is a dry run
        poller_agent.check_release(releases, choice.name)
        settings = contents[poller_agent.SETTINGS] or b""
        poller_agent.check_settings(releases, run, choice.name, params["interpreter"], settings)
    restart = poller_agent.needs_restart(
        before, after, release_before.current != release_after.current
    )
    changed = (release_before, before) != (release_after, after)
    if changed and not module.check_mode:
        if restart:
            poller_agent.note_restart(layout)
        if release_before != release_after:
            release.reach(releases, run, release_before, release_after)
        poller_agent.reach(layout, releases, run, before, after, contents, choice.name, restart)
    for warning in release.warnings(releases, release_after):
        module.warn(warning)
    shown = poller_agent.difference(before, after)
    return {
        "changed": changed,
        "current": choice.name,
        "releases": list(release_after.releases),
        "restarted": restart and before.units[poller_agent.UNIT].active,
        "diff": {
            "before": {**shown[0], "release": release_before.to_dict()},
            "after": {**shown[1], "release": release_after.to_dict()},
        },
    }


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "service": {"type": "str"},
            "host": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "ca": {"type": "path"},
            "director_root": {"type": "path"},
            "tls_server_name": {"type": "str"},
            "client_certificate": {"type": "path"},
            "client_key": {"type": "path", "no_log": False},
            "org": {"type": "int"},
            "groups": {"type": "list", "elements": "str"},
            "labels": {"type": "dict"},
            "products": {"type": "list", "elements": "str", "choices": ["CONNTRACK", "AGENT"]},
            "poll_interval_seconds": {"type": "int"},
            "log_level": {"type": "str", "choices": ["debug", "info", "warning", "error"]},
            "metrics": {"type": "bool"},
            "metrics_listen": {"type": "str"},
            "src": {"type": "path"},
            "keep": {"type": "int", "default": 2},
            "interpreter": {"type": "path", "default": INTERPRETER},
            "pip_arguments": {"type": "list", "elements": "str", "default": []},
            "archives": {"type": "path"},
            "_sha256": {"type": "str"},
            "_version": {"type": "str"},
            "_archive": {"type": "path"},
            "_archive_sha256": {"type": "str"},
            "_ca": {"type": "str"},
            "_director_root": {"type": "str"},
        },
        supports_check_mode=True,
    )
    action = absent if module.params["state"] == "absent" else present
    try:
        if module.params["keep"] < 0:
            raise HostError(f"keep is {module.params['keep']}, needed: 0 or more")
        result = action(module)
    except (HostError, TrackerError) as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
