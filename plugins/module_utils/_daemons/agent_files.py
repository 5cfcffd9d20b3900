# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of the agent's files, from what a user says. Pure.

What is said here is checked in full by the agent's own code, from the release; these are the checks
that it cannot make, or not before the agent runs.
"""

from __future__ import annotations

import json
import re
from typing import Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._config import strict_json
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import HostError

from .poller_agent import CA, ROOT, SETTINGS, TOKEN

# Keys of agent.json that are options of the same name
OPTIONS = (
    "client_certificate",
    "client_key",
    "groups",
    "host",
    "labels",
    "log_level",
    "metrics",
    "metrics_listen",
    "org",
    "poll_interval_seconds",
    "products",
    "service",
    "tls_server_name",
)

# It goes into a header; shorter ones can be guessed
_TOKEN = re.compile(r"[!-~]{16,4096}")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[^-]+-----END CERTIFICATE-----")


def contents(
    options: Mapping[str, object], token: str | None, ca: str | None, director_root: str | None
) -> dict[str, bytes | None]:
    """What to write, by file; None for a file that stays as it is. Raises HostError."""
    return {
        SETTINGS: settings(options),
        TOKEN: None if token is None else _token(token),
        CA: None if ca is None else _ca(ca),
        ROOT: None if director_root is None else _root(director_root),
    }


def settings(options: Mapping[str, object]) -> bytes:
    """agent.json, without what nobody said: the agent has its own defaults."""
    for name in ("host", "service"):
        if not options.get(name):
            raise HostError(f"{name} is missing, needed for state present")
    said = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    return (json.dumps(said, indent=2, sort_keys=True) + "\n").encode()


def _token(token: str) -> bytes:
    text = token.strip()
    if not _TOKEN.fullmatch(text):
        raise HostError(
            f"token has {len(text)} characters, needed: 16 to 4096 printable ASCII ones and no "
            "space; make one with the lookup ansible.builtin.password"
        )
    return text.encode() + b"\n"


def _ca(text: str) -> bytes:
    if "PRIVATE KEY" in text:
        raise HostError("ca holds a private key, needed: certificates alone; nothing was sent on")
    if not _CERTIFICATE.search(text):
        raise HostError("ca holds no PEM certificate, needed: the CA of the config service")
    return text.strip().encode() + b"\n"


def _root(text: str) -> bytes:
    raw = text.encode()
    try:
        data = strict_json.loads(raw, "director_root")
    except ConfigError as exc:
        raise HostError(str(exc)) from None
    signed = data.get("signed") if isinstance(data, dict) else None
    if not isinstance(signed, dict) or signed.get("_type") != "root":
        raise HostError("director_root is no TUF root, needed: the director's 1.root.json")
    return raw
