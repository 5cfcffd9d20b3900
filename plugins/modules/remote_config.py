#!/usr/bin/python
# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: remote_config
short_description: Publishes and withdraws configs
version_added: 0.1.0
description:
  - Publishes a config, one signed file of a product, for the hosts that its predicates match, or
    many at once in O(configs), which is one new generation and one signature of each role.
  - A content that a host would refuse is refused here.
  - What is published already in the same way is left alone, and gets no new version.
author:
  - btfleet contributors (@btfleet)
requirements:
  - tuf >= 6.0
  - securesystemslib[crypto]
options:
  state:
    description: Whether the config is to be there. For O(configs), where they do not say.
    type: str
    choices: [present, absent]
    default: present
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
  product:
    description: The product.
    type: str
    choices: [AGENT, CONNTRACK]
  id:
    description:
      - Third segment of the path, for what belongs together. Of C(A-Z a-z 0-9 . _ -), at most 128.
    type: str
  name:
    description: Last segment of the path, with the same letters.
    type: str
  content:
    description: The settings, as the product takes them. Needed if it is to be there.
    type: dict
  predicates:
    description:
      - Whom the config is for. Any of them has to match, and in it all that it sets. Without any,
        it is for every host.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: A host's name.
        type: str
      group:
        description: A group that the host is in.
        type: str
      labels:
        description: Labels that the host has, with their values.
        type: dict
  expires:
    description:
      - From when on the config is for nobody, a date (C(2026-12-31), from 00:00 UTC on), a time
        with its zone (C(2026-12-31T18:00:00Z)), or Unix seconds. Without it, never.
    type: str
  configs:
    description: Several configs, in place of one.
    type: list
    elements: dict
    suboptions:
      state:
        description: Whether it is to be there. Without it, O(state) says.
        type: str
        choices: [present, absent]
      product:
        required: true
        description: The product.
        type: str
        choices: [AGENT, CONNTRACK]
      id:
        required: true
        description:
          - Third segment of the path, for what belongs together. Of C(A-Z a-z 0-9 . _ -), at most
            128.
        type: str
      name:
        required: true
        description: Last segment of the path, with the same letters.
        type: str
      content:
        description: The settings, as the product takes them. Needed if it is to be there.
        type: dict
      predicates:
        description:
          - Whom the config is for. Any of them has to match, and in it all that it sets. Without
            any, it is for every host.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: A host's name.
            type: str
          group:
            description: A group that the host is in.
            type: str
          labels:
            description: Labels that the host has, with their values.
            type: dict
      expires:
        description:
          - From when on the config is for nobody, a date (C(2026-12-31), from 00:00 UTC on), a time
            with its zone (C(2026-12-31T18:00:00Z)), or Unix seconds. Without it, never.
        type: str
  exclusive:
    description: Withdraw every config that is not asked for in this task.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change, and fails where the run itself would be refused.
    support: full
  diff_mode:
    description: Shows the configs that change, with their contents, before and after.
    support: full
seealso:
  - module: btfleet.conntrack.config_repository
notes:
  - Runs on the control node (C(delegate_to=localhost) or a local connection), as one and the same
    user, never as root for its own sake.
  - Several runs at once wait for each other.
  - Needs the keys of targets, snapshot and timestamp. Those of the roots may be kept elsewhere.
"""

EXAMPLES = r"""
- name: Switch UDP over IPv6 off on the hosts at the edge
  btfleet.conntrack.remote_config:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
    product: CONNTRACK
    id: edge
    name: no-udp6
    content:
      udpv6_enabled: false
    predicates:
      - labels: {site: edge}
    expires: 2027-01-31
  delegate_to: localhost

- name: Take it back
  btfleet.conntrack.remote_config:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
    product: CONNTRACK
    id: edge
    name: no-udp6
    state: absent
  delegate_to: localhost

- name: Have these configs and no others
  btfleet.conntrack.remote_config:
    path: /srv/btfleet/published
    keys: /srv/btfleet/keys
    passphrase_file: /srv/btfleet/passphrase
    exclusive: true
    configs:
      - product: AGENT
        id: fleet
        name: polling
        content: {poll_interval_seconds: 30}
      - product: AGENT
        id: debug
        name: gw1
        content: {log_level: debug}
        predicates: [{host: gw1.example.org}]
  delegate_to: localhost
"""

RETURN = r"""
configs:
  description:
    - The configs that were asked for and are there, by path, with version, sha256, predicates,
      expires (Unix seconds, 0 for never) and content.
  type: dict
  returned: success
path:
  description: Path of the config.
  type: str
  returned: without O(configs)
  sample: btfleet/1/CONNTRACK/edge/no-udp6
version:
  description: The config's version, which rises with each change of its content.
  type: int
  returned: without O(configs), for O(state=present)
sha256:
  description: Digest of the config's file.
  type: str
  returned: without O(configs), for O(state=present)
withdrawn:
  description: The paths that were withdrawn.
  type: list
  elements: str
  returned: success
generation:
  description: Number of the current generation. In check mode, of the one that would be.
  type: int
  returned: success
repositories:
  description: Version, expiry, key ids, threshold and last rotation of each role, by repository.
  type: dict
  returned: success
"""

from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.catalogue import PRODUCTS
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import libraries
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.errors import (
    PublisherError,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.options import (
    COMMON,
    publisher,
)

STATES = ["present", "absent"]
FIELDS = ("product", "id", "name", "content", "predicates", "expires")


def options(required: bool) -> dict[str, dict[str, Any]]:
    """The options that describe one config."""
    must = {"required": True} if required else {}
    return {
        "product": {"type": "str", "choices": list(PRODUCTS), **must},
        "id": {"type": "str", **must},
        "name": {"type": "str", **must},
        "content": {"type": "dict"},
        "predicates": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "host": {"type": "str"},
                "group": {"type": "str"},
                "labels": {"type": "dict"},
            },
        },
        "expires": {"type": "str"},
    }


def entries(params: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked for, one entry a config."""
    if params["configs"] is not None:
        return [{**one, "state": one["state"] or params["state"]} for one in params["configs"]]
    if params["product"] is not None:
        return [{"state": params["state"], **{field: params[field] for field in FIELDS}}]
    return []


def run(module: AnsibleModule) -> dict[str, Any]:
    """Publishes unless in check mode; raises PublisherError and ConfigError."""
    params = module.params
    outcome = publisher(params, module.check_mode).publish(
        entries(params), params["exclusive"], datetime.now(timezone.utc)
    )
    for warning in outcome.warnings:
        module.warn(warning)
    result = {
        "changed": outcome.changed,
        "configs": outcome.configs,
        "withdrawn": outcome.withdrawn,
        "generation": outcome.generation,
        "repositories": outcome.repositories,
        "diff": {"before": outcome.before, "after": outcome.after},
    }
    if params["product"] is not None:
        result["path"] = outcome.paths[0]
        if params["state"] == "present":
            described = outcome.configs[outcome.paths[0]]
            result.update(version=described["version"], sha256=described["sha256"])
    return result


def main() -> None:
    """Turns errors into one line."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": STATES, "default": "present"},
            **COMMON,
            **options(required=False),
            "configs": {
                "type": "list",
                "elements": "dict",
                "options": {"state": {"type": "str", "choices": STATES}, **options(required=True)},
            },
            "exclusive": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("product", "configs")],
        required_together=[("product", "id", "name")],
        required_one_of=[("product", "configs")],
        supports_check_mode=True,
    )
    if libraries.problem():
        module.fail_json(
            msg=missing_required_lib(libraries.NEEDED, reason="to publish remote config"),
            exception=libraries.IMPORT_ERROR,
        )
    try:
        result = run(module)
    except (PublisherError, ConfigError) as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"cannot publish ({exc}): what was published before stays")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
