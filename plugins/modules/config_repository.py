#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_repository
short_description: Makes and keeps the two repositories that remote config is published in
version_added: 0.1.0
description:
  - Makes the director and the config repository, both of TUF metadata, with their encrypted keys.
  - Run it on a schedule. It renews what is about to expire, and changes nothing otherwise.
  - Changes numbers of keys, thresholds and times of expiry, and rotates the keys of any role, also
    of the root.
  - Whatever it does is verified as clients will do it before they can see it.
author:
  - btfleet contributors (@btfleet)
requirements:
  - tuf >= 6.0
  - securesystemslib[crypto]
options:
  state:
    description:
      - V(present) makes, converges and renews the repositories.
      - V(absent) removes them and their keys, for good. Needs O(force=true).
    type: str
    choices: [present, absent]
    default: present
  force:
    description: Really remove repositories and keys. Every host would need the new director root.
    type: bool
    default: false
  path:
    description:
      - The folder to publish to. C(current) in it is what readers take, from the folder itself or
        over HTTPS.
    type: path
    required: true
  keys:
    description:
      - The key folder, for its owner alone. Must not lie in O(path), nor O(path) in it.
    type: path
    required: true
  passphrase:
    description:
      - What the private keys are encrypted with, 8 characters or more.
      - Without it and O(passphrase_file), the environment variable E(BTFLEET_PASSPHRASE) is taken.
    type: str
  passphrase_file:
    description: A file with the passphrase as its first line, readable by its owner alone.
    type: path
  passphrases:
    description:
      - Other passphrases for the keys of single roles, as C(director.root).
    type: dict
  keep_generations:
    description:
      - How many former generations are kept beside the current one, 1 to 1000. They serve readers
        that are half-way when the current one changes.
    type: int
    default: 5
  org:
    description: The number that all paths of configs begin with. It cannot change.
    type: int
    default: 1
  roles:
    description:
      - How roles differ from their defaults. A root has 2 keys, any of them may sign, and is good
        for 365 days. Targets, snapshot and timestamp have one key and are good for 90, 30 and 7
        days.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Repository and role.
        type: str
        required: true
        choices: &roles
          - director.root
          - director.targets
          - director.snapshot
          - director.timestamp
          - config.root
          - config.targets
          - config.snapshot
          - config.timestamp
      keys:
        description: How many keys there are, 1 to 16.
        type: int
      threshold:
        description: How many of them have to sign.
        type: int
      expiry_days:
        description: For how many days a signature is good, 1 to 3650.
        type: int
  renew_margin:
    description:
      - A role is renewed when less than this share of its time is left, in percent.
      - Where its keys are not at hand, that is put off with a warning until it has expired.
    type: int
    default: 50
  rotate:
    description:
      - Roles whose keys are replaced by new ones. The old ones are removed from the key folder.
    type: list
    elements: str
    default: []
    choices: *roles
  rotation_id:
    description:
      - A name of your choice for this rotation. A role that was rotated under it last is not
        rotated again, so that the same run twice does it once.
    type: str
attributes:
  check_mode:
    description: Says what would change, and fails where the run itself would be refused.
    support: full
  diff_mode:
    description: Shows versions, expiries, key ids and thresholds, before and after.
    support: full
seealso:
  - module: btfleet.conntrack.remote_config
notes:
  - Runs on the control node (C(delegate_to=localhost) or a local connection), as one and the same
    user, never as root for its own sake.
  - Several runs at once wait for each other.
  - Back up O(path) and O(keys) together.
"""

EXAMPLES = r"""
- name: Make the repositories, and renew them when it is time
  btfleet.conntrack.config_repository:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
  delegate_to: localhost

- name: Ask for two of three keys to sign a root
  btfleet.conntrack.config_repository:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
    roles:
      - {name: director.root, keys: 3, threshold: 2}
      - {name: config.root, keys: 3, threshold: 2}
  delegate_to: localhost

- name: Replace keys that may have been stolen
  btfleet.conntrack.config_repository:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
    rotate: [director.targets, director.snapshot, director.timestamp]
    rotation_id: lost-laptop-2026-11
  delegate_to: localhost
"""

RETURN = r"""
generation:
  description: Number of the current generation. In check mode, of the one that would be.
  type: int
  returned: for O(state=present)
repositories:
  description: Version, expiry, key ids, threshold and last rotation of each role, by repository.
  type: dict
  returned: for O(state=present)
root_files:
  description:
    - The newest root of each repository, by its name. The director's is what a host has to trust
      first, both are what a config service has to.
  type: dict
  returned: for O(state=present)
  sample:
    director: /srv/btfleet/published/current/director/1.root.json
    config: /srv/btfleet/published/current/config/1.root.json
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import libraries
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.errors import (
    PublisherError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.options import (
    COMMON,
    publisher,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import (
    REPOSITORIES,
    ROLES,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.publisher import (
    Settings,
    role_settings,
)

NAMES = [f"{repository}.{role}" for repository in REPOSITORIES for role in ROLES]


def absent(module: AnsibleModule) -> dict[str, Any]:
    """Removes it all, if that is really meant."""
    if not module.params["force"]:
        raise PublisherError(
            "state is absent without force, needed: force=true if the repositories and their keys "
            "are to be removed for good"
        )
    return {"changed": publisher(module.params, module.check_mode).remove()}


def present(module: AnsibleModule) -> dict[str, Any]:
    """Converges unless in check mode."""
    params = module.params
    settings = Settings(
        org=params["org"],
        roles=role_settings(params["roles"]),
        margin=params["renew_margin"],
        rotate=tuple(params["rotate"]),
        rotation_id=params["rotation_id"],
    )
    at_work = publisher(params, module.check_mode)
    outcome = at_work.converge(settings, datetime.now(timezone.utc))
    for warning in outcome.warnings:
        module.warn(warning)
    return {
        "changed": outcome.changed,
        "generation": outcome.generation,
        "repositories": outcome.repositories,
        "root_files": {
            name: f"{params['path']}/current/{name}/{roles['root']['version']}.root.json"
            for name, roles in outcome.repositories.items()
        },
        "diff": {"before": outcome.before, "after": outcome.after},
    }


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "force": {"type": "bool", "default": False},
            **COMMON,
            "org": {"type": "int", "default": 1},
            "roles": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True, "choices": NAMES},
                    "keys": {"type": "int", "no_log": False},
                    "threshold": {"type": "int"},
                    "expiry_days": {"type": "int"},
                },
            },
            "renew_margin": {"type": "int", "default": 50},
            "rotate": {"type": "list", "elements": "str", "default": [], "choices": NAMES},
            "rotation_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    if libraries.problem():
        module.fail_json(
            msg=missing_required_lib(libraries.NEEDED, reason="to publish remote config"),
            exception=libraries.IMPORT_ERROR,
        )
    try:
        result = (absent if module.params["state"] == "absent" else present)(module)
    except PublisherError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"cannot publish ({exc}): what was published before stays")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
