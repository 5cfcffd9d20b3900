# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the agent's settings and its socket are, unless it is told otherwise."""

from __future__ import annotations

PATH = "/etc/btfleet/agent.json"
SOCKET = "/run/btfleet-agent/agent.sock"
