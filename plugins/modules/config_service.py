#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_service
short_description: Installs the config service, which verifies signed configs and answers polls
version_added: 0.1.0
description:
  - Installs the release with all that the service needs beside those that are there, and switches
    to it in one step, as M(btfleet.conntrack.release) does. The tracker's boot unit is left as it
    is, since the host need not have one.
  - Writes settings, certificates and the hashes of the hosts' tokens, makes the user and group
    C(btfleet-config), and keeps the unit enabled and started.
  - The service is restarted only for another release, unit or settings. Other certificates and
    tokens it reads by itself.
  - Needs no pip, package index or compiler on the host, but Python 3.10 and glibc 2.28, or newer.
author:
  - btfleet contributors (@btfleet)
options:
  state:
    description:
      - V(present) makes the service run.
      - V(absent) takes it away with its files, state and account, and the release too if nothing
        else on the host runs it.
    type: str
    choices: [present, absent]
    default: present
  repository:
    description:
      - Where the published repositories are, a folder on the host or an C(https://) address.
      - Required for O(state=present).
    type: str
  repository_ca:
    description:
      - File on the control node with the CA of an C(https://) repository (PEM). Without it the
        host's own CAs are taken.
    type: path
  director_root:
    description:
      - File on the control node with the director's first root (C(1.root.json)).
      - Without it the one on the host stays.
    type: path
  config_root:
    description:
      - File on the control node with the config repository's first root (C(1.root.json)).
      - Without it the one on the host stays.
    type: path
  certificate:
    description:
      - File on the control node with the service's certificate and its chain (PEM).
      - Without it the one on the host stays.
    type: path
  key:
    description:
      - File on the control node with the certificate's private key (PEM, not encrypted; it may be
        in an Ansible vault).
      - Without it the one on the host stays.
    type: path
  client_ca:
    description:
      - File on the control node with a CA (PEM). With it, clients need a certificate of it.
    type: path
  tokens:
    description:
      - The hosts' tokens by name, one or a list of them while they are changed. The host gets
        nothing but hashes.
      - Without it what is on the host stays.
    type: dict
  operators:
    description: The tokens of those who may ask for the service's own state, as O(tokens).
    type: dict
  listen:
    description: C(ADDRESS:PORT) to listen on.
    type: str
  org:
    description: The organisation whose configs are served.
    type: int
  refresh_interval_seconds:
    description: How often the repositories are looked at, 5 seconds or more.
    type: int
  client_ttl_seconds:
    description: After how many seconds without a poll a host is no longer live, 5 to 3600.
    type: int
  suggested_interval_seconds:
    description: The seconds between polls that hosts are asked for; 0 leaves it to them.
    type: int
  metrics_listen:
    description: C(ADDRESS:PORT) of the Prometheus metrics; empty for none.
    type: str
  enabled:
    description: With V(false) every poll is answered with "remote config is off".
    type: bool
  reflection:
    description: Whether gRPC clients may ask which calls there are.
    type: bool
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
  _certificate:
    description: Set by the action plugin. Content of O(certificate).
    type: str
  _key:
    description: Set by the action plugin. Content of O(key).
    type: str
  _client_ca:
    description: Set by the action plugin. Content of O(client_ca).
    type: str
  _repository_ca:
    description: Set by the action plugin. Content of O(repository_ca).
    type: str
  _director_root:
    description: Set by the action plugin. Content of O(director_root).
    type: str
  _config_root:
    description: Set by the action plugin. Content of O(config_root).
    type: str
  _tokens:
    description: Set by the action plugin. Names and hashes of tokens, as JSON.
    type: str
attributes:
  check_mode:
    description: Says what would change, and fails where the host cannot run the service.
    support: full
  diff_mode:
    description: Shows release, files, unit and account, before and after; never a key or token.
    support: full
seealso:
  - module: btfleet.conntrack.config_repository
  - module: btfleet.conntrack.poller_agent
  - module: btfleet.conntrack.release
notes:
  - Has to run as root, on a host with systemd.
  - Settings that are not given are left to the service's own defaults (docs/remote-config.md).
"""

EXAMPLES = r"""
- name: Serve what is published on a web server
  btfleet.conntrack.config_service:
    repository: https://published.example.org/btfleet
    director_root: files/director/1.root.json
    config_root: files/config/1.root.json
    certificate: files/config-service.pem
    key: files/config-service.key
    tokens: "{{ vault_btfleet_tokens }}"
    operators:
      compliance: "{{ vault_btfleet_operator_token }}"
  no_log: true

- name: Take the service away
  btfleet.conntrack.config_service:
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
  description: Whether the running service was restarted, or would be.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import config_service
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    file_digest,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release,
    release_choice,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    INTERPRETER,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release_choice import Offer

SETTINGS = (
    "repository",
    "listen",
    "org",
    "refresh_interval_seconds",
    "client_ttl_seconds",
    "suggested_interval_seconds",
    "metrics_listen",
    "enabled",
    "reflection",
)
# Files by the option that brings their content
CONTENTS = {
    config_service.CERTIFICATE: "_certificate",
    config_service.KEY: "_key",
    config_service.CLIENT_CA: "_client_ca",
    config_service.REPOSITORY_CA: "_repository_ca",
    config_service.DIRECTOR_ROOT: "_director_root",
    config_service.CONFIG_ROOT: "_config_root",
    config_service.TOKENS: "_tokens",
}


def absent(module: AnsibleModule) -> dict[str, object]:
    """Removes the service unless in check mode, and a release that nothing runs then."""
    run, layout, releases = runner(module), config_service.Layout(), release.Layout()
    before, after = config_service.read(layout, run), config_service.State()
    release_before = release.read(releases, run)
    # The tracker's boot unit runs it, and with that unit it goes
    is_last = release_before.unit is None and before.unit.digest is not None
    release_after = (
        release.plan_removal(release_before, in_use=False) if is_last else release_before
    )
    if not module.check_mode:
        if before != after:
            config_service.remove(layout, run)
        if release_before != release_after:
            release.remove(releases, run, release_before, release_after)
    return answer(before, after, release_before, release_after)


def present(module: AnsibleModule) -> dict[str, object]:
    """Installs, writes, switches and starts unless in check mode."""
    params, run = module.params, runner(module)
    if not params["repository"]:
        raise HostError("repository is missing, needed for state present")
    releases, layout = release.Layout(), config_service.Layout()
    contents = {
        name: None if params[option] is None else params[option].encode()
        for name, option in CONTENTS.items()
    }
    options = {name: params[name] for name in SETTINGS}
    options.update(client_ca=params["_client_ca"], repository_ca=params["_repository_ca"])
    contents[config_service.SETTINGS] = config_service.settings(layout, options)
    offer = Offer(*(params[f"_{name}"] for name in Offer._fields))
    release_before = release.read(releases, run)
    choice = release_choice.choose(offer, release_before.current, True, run, params["interpreter"])
    before = config_service.read(layout, run)
    # What is missing is said before anything is sent
    config_service.plan(before, contents, None)
    if choice.name not in release_before.releases and not module.check_mode:
        if offer.archive is None:
            return choice.request()
        release_choice.unpack(releases, run, offer, choice)

    def packed(unit: str) -> str | None:
        return file_digest(release.packed_unit(releases, choice.name, unit))

    release_after = release.plan(
        release_before,
        choice.name,
        params["keep"],
        release.packed_units(releases, choice.name),
        boot=release_before.unit is not None,
    )
    after = config_service.plan(before, contents, packed(config_service.UNIT))
    restart = config_service.needs_restart(
        before, after, release_before.current != release_after.current
    )
    if (release_before, before) != (release_after, after) and not module.check_mode:
        if restart:
            config_service.note_restart(layout)
        if release_before != release_after:
            release.reach(releases, run, release_before, release_after)
        config_service.reach(layout, releases, run, before, after, contents, choice.name, restart)
    for warning in release.warnings(releases, release_after):
        module.warn(warning)
    return {
        **answer(before, after, release_before, release_after),
        "current": choice.name,
        "releases": list(release_after.releases),
        "restarted": restart and before.unit.active,
    }


def answer(
    before: config_service.State,
    after: config_service.State,
    release_before: release.State,
    release_after: release.State,
) -> dict[str, object]:
    """What both have in common."""
    shown = config_service.difference(before, after)
    return {
        "changed": (before, release_before) != (after, release_after),
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
            "repository": {"type": "str"},
            "repository_ca": {"type": "path"},
            "director_root": {"type": "path"},
            "config_root": {"type": "path"},
            "certificate": {"type": "path"},
            "key": {"type": "path", "no_log": False},
            "client_ca": {"type": "path"},
            "tokens": {"type": "dict", "no_log": True},
            "operators": {"type": "dict", "no_log": True},
            "listen": {"type": "str"},
            "org": {"type": "int"},
            "refresh_interval_seconds": {"type": "int"},
            "client_ttl_seconds": {"type": "int"},
            "suggested_interval_seconds": {"type": "int"},
            "metrics_listen": {"type": "str"},
            "enabled": {"type": "bool"},
            "reflection": {"type": "bool"},
            "src": {"type": "path"},
            "keep": {"type": "int", "default": 2},
            "interpreter": {"type": "path", "default": INTERPRETER},
            "pip_arguments": {"type": "list", "elements": "str", "default": []},
            "archives": {"type": "path"},
            "_sha256": {"type": "str"},
            "_version": {"type": "str"},
            "_archive": {"type": "path"},
            "_archive_sha256": {"type": "str"},
            "_certificate": {"type": "str"},
            "_key": {"type": "str", "no_log": True},
            "_client_ca": {"type": "str"},
            "_repository_ca": {"type": "str"},
            "_director_root": {"type": "str"},
            "_config_root": {"type": "str"},
            "_tokens": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    action = absent if module.params["state"] == "absent" else present
    try:
        if module.params["keep"] < 0:
            raise HostError(f"keep is {module.params['keep']}, needed: 0 or more")
        result = action(module)
    except HostError as exc:
        module.fail_json(msg=str(exc))
    except PermissionError as exc:
        module.fail_json(msg=f"no permission ({exc}): run this task as root (become: true)")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
