# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what the poller agent has on a host: its state file, its settings, and its own word."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner

from .config_state import Applied, Stored

try:
    import sqlite3
except ImportError:  # some distributions' Python comes without
    sqlite3 = None  # type: ignore[assignment]

SCHEMA = 1


class StateUnreadable(Exception):
    """One line: why the agent's state file is not to be had."""


def read_settings(path: str) -> dict[str, Any]:
    """The agent's settings, none if there is no such file or it is damaged."""
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def read_stored(path: str) -> Stored:
    """What is in the state file, nothing if there is none; raises StateUnreadable.

    Nothing is written: without the agent's journal beside it, the file is read as one that nobody
    changes.
    """
    if not os.path.exists(path):
        return Stored()
    if sqlite3 is None:
        raise StateUnreadable("the host's Python has no sqlite3 to read the agent's state with")
    mode = "mode=ro" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?{mode}", uri=True)) as database:
            return _read(database, path)
    except sqlite3.Error as exc:
        raise StateUnreadable(f"{path} cannot be read ({exc})") from None


def _read(database: sqlite3.Connection, path: str) -> Stored:
    (schema,) = database.execute("PRAGMA user_version").fetchone()
    if schema != SCHEMA:
        raise StateUnreadable(
            f"{path} has schema {schema}, this module knows {SCHEMA}: take the collection's "
            "version that the agent is from"
        )
    database.execute("BEGIN")  # one moment for all of it
    row = database.execute("SELECT raw, refill FROM targets").fetchone()
    targets, refill = row or (None, 0)
    files = dict(database.execute("SELECT path, raw FROM files"))
    columns = ", ".join(Applied._fields)
    states = database.execute(f"SELECT {columns} FROM states")  # noqa: S608 our own names
    return Stored(
        targets, bool(refill) and not files, files, tuple(Applied(*state) for state in states)
    )


def ask(run: Runner, command: str) -> tuple[Mapping[str, Any] | None, str | None]:
    """What the installed command says of the agent, and why it says nothing."""
    if not os.access(command, os.X_OK):
        return None, None
    code, output, errors = run([command, "status", "--json"])
    try:
        agent = json.loads(output).get("agent")
    except (ValueError, AttributeError):
        detail = " ".join(errors.split()) or f"exit code {code}"
        return None, f"{command} does not say how the agent is ({detail})"
    return agent, None
