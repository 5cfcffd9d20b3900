# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offers the release with its dependencies, and brings the files of the control node along.

Tokens are hashed here: a host never sees those of others.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.release_sending import (
    ReleaseAction,
)

# Options that name a text file on the control node
_FILES = (
    "certificate",
    "key",
    "client_ca",
    "director_root",
    "config_root",
    "repository_ca",
)
_SHORTEST_TOKEN = 16


def hashed(tokens: Any, option: str) -> dict[str, list[str]]:
    """Names with the SHA-256 (hex) of each of their tokens; raises AnsibleActionFail."""
    if not isinstance(tokens, dict):
        raise AnsibleActionFail(f"{option} is no object, needed: a name with a token, or several")
    return {
        str(name): sorted(
            _digest(token, f"{option}: a token of {name}") for token in _listed(value)
        )
        for name, value in tokens.items()
    }


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _digest(token: Any, what: str) -> str:
    text = str(token).strip()
    if len(text) < _SHORTEST_TOKEN:
        raise AnsibleActionFail(
            f"{what} has {len(text)} characters, needed: {_SHORTEST_TOKEN} or more"
        )
    return hashlib.sha256(text.encode()).hexdigest()


class ActionModule(ReleaseAction):
    """See the module's documentation."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the release was missing."""
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.arguments()
        private = [f"_{name}" for name in (*_FILES, "tokens")]
        if any(name in arguments for name in private):
            raise AnsibleActionFail(f"{', '.join(private)} are set by the action plugin alone")
        if arguments.get("state") == "absent":
            result.update(self.execute({"state": "absent"}, task_vars))
            return result
        for name in _FILES:
            path = arguments.pop(name, None)
            if path:
                arguments[f"_{name}"] = self.read_text(str(path), name)
        tokens, operators = arguments.pop("tokens", None), arguments.pop("operators", None)
        if tokens is not None:
            content = {
                "hosts": hashed(tokens, "tokens"),
                "operators": hashed(operators or {}, "operators"),
            }
            arguments["_tokens"] = json.dumps(content, indent=2, sort_keys=True) + "\n"
        elif operators is not None:
            raise AnsibleActionFail("operators is given without tokens, needed: both")
        result.update(self.install(arguments, task_vars))
        return result
