# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Report files on the control node: writing them, and reading the summaries of earlier ones."""

from __future__ import annotations

import os
import re
import tempfile
import time
from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._compliance import (
    data_files,
    html,
    markdown,
)

MODES = (0o600, 0o640)
# Name and renderer of each format. A JSON report has its time in its name: later runs read it
_LATEST = {
    "csv": ("compliance.csv", data_files.as_csv),
    "junit": ("compliance.junit.xml", data_files.as_junit),
    "markdown": ("compliance.md", markdown.render),
    "html": ("compliance.html", html.render),
}
FORMATS = ("json", *_LATEST)
_EARLIER = re.compile(r"compliance-\d{8}T\d{6}Z\.json")
_FIRST_LINE = 1 << 20


def json_name(now: float) -> str:
    """The name of a JSON report."""
    return time.strftime("compliance-%Y%m%dT%H%M%SZ.json", time.gmtime(now))


def earlier(folder: str, now: float, limit: int) -> list[dict[str, Any]]:
    """The summaries of the last reports in a folder, oldest first; what is none is passed over."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = [name for name in names if _EARLIER.fullmatch(name) and name < json_name(now)]
    summaries = []
    for name in found[-limit:] if limit > 0 else []:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as stream:
                summaries.append(_checked(data_files.summary_of_json(stream.readline(_FIRST_LINE))))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return summaries


def _checked(summary: dict[str, Any]) -> dict[str, Any]:
    for key in ("hosts", "compliant", "generated", "bad_hosts", "unreachable", "failed"):
        if not isinstance(summary[key], int):
            raise TypeError(key)
    if not isinstance(summary["generated_at"], str) or len(summary["generated_at"]) > 30:
        raise TypeError("generated_at")
    return summary


def write(report: Mapping[str, Any], folder: str, formats: list[str], mode: int) -> dict[str, str]:
    """Writes the formats, each file in one step; their paths by format. Raises OSError."""
    os.makedirs(folder, mode=0o750, exist_ok=True)
    paths = {}
    for name in formats:
        if name == "json":
            file, content = json_name(report["summary"]["generated"]), data_files.as_json(report)
        else:
            file, render = _LATEST[name]
            content = render(report)
        paths[name] = os.path.join(folder, file)
        _replace(paths[name], content.encode("utf-8", "replace"), mode)
    return paths


def _replace(path: str, content: bytes, mode: int) -> None:
    fd, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".compliance-")
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
