# SPDX-License-Identifier: GPL-3.0-or-later
"""Other programs, as independent witnesses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

PINS = Path("/sys/fs/bpf/btfleet")
SPEC_FILE = Path("/etc/btfleet/spec.json")
# An emulated guest on a busy machine takes longer to list its units than systemctl waits
ENVIRONMENT = {**os.environ, "SYSTEMD_BUS_TIMEOUT": "300"}


class GuestError(Exception):
    """One line that says what was not as it has to be."""


def run(*argv: str, ok: tuple[int, ...] = (0,)) -> str:
    """The program's output; GuestError unless it ends with one of `ok`."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode not in ok:
        said = (done.stderr or done.stdout).strip()
        raise GuestError(f"`{' '.join(argv)}` ended with {done.returncode}: {said}")
    return done.stdout


def bpftool(*arguments: str) -> Any:
    """bpftool's answer, parsed.

    Debian 13's version prints a pinned link as it should, and then ends with 255 all the same.
    """
    answer = json.loads(run("bpftool", "-j", *arguments, ok=(0, 255)))
    if isinstance(answer, dict) and "error" in answer:
        raise GuestError(f"bpftool {' '.join(arguments)}: {answer['error']}")
    return answer


def status() -> dict[str, Any]:
    """What `btfleet status` says; its exit code is 1 or 5 where all is not well."""
    answer: dict[str, Any] = json.loads(run("btfleet", "status", "--json", ok=(0, 1, 5)))
    return answer
