# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that runs the agent on a host, and the name of the tree that fits it.

The name is made from what the tree is made from: the control node and the host find the same one
without the tree having been built.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
)

INTERPRETER = "/usr/bin/python3"

# Raise it when the same inputs come to make another tree
FORMAT = 1

ARCHES = ("aarch64", "x86_64")
OLDEST_PYTHON = (3, 10)
# What the wheels are built for: manylinux_2_28
OLDEST_GLIBC = (2, 28)

_QUESTION = """\
import json, platform, sys
print(json.dumps([sys.implementation.name, sys.version_info[:2], platform.machine(),
                  platform.libc_ver()]))
"""


class HostPython(NamedTuple):
    """`tag` is as in a wheel's name, for example cp311; `arch` as `uname -m` says."""

    tag: str
    arch: str
    interpreter: str = INTERPRETER

    @property
    def version(self) -> str:
        """As in 3.11."""
        return f"{self.tag[2]}.{self.tag[3:]}"


def read(run: Runner, interpreter: str) -> HostPython:
    """What this interpreter is; raises HostError if it cannot run the agent."""
    if not os.access(interpreter, os.X_OK):
        raise HostError(
            f"{interpreter} is not there: install Python {_text(OLDEST_PYTHON)} or newer, or say "
            "where it is (interpreter)"
        )
    code, output, errors = run([interpreter, "-IS", "-c", _QUESTION])
    if code != 0:
        detail = " ".join(errors.split()) or f"exit code {code}"
        raise HostError(f"{interpreter} does not run ({detail}): repair it, or name another one")
    return judge(json.loads(output), interpreter)


def judge(answer: list[object], interpreter: str) -> HostPython:
    """The same from the interpreter's answer: [implementation, version, machine, libc]."""
    name, version, arch, libc = answer
    if name != "cpython" or not isinstance(version, list) or tuple(version) < OLDEST_PYTHON:
        raise HostError(
            f"{interpreter} is {name} {_text(version)}, needed: cpython {_text(OLDEST_PYTHON)} or "
            "newer; say where there is one (interpreter), or go without the poller agent"
        )
    if arch not in ARCHES:
        raise HostError(f"the host is {arch}, the agent's packages are for {' and '.join(ARCHES)}")
    if not isinstance(libc, list) or libc[0] != "glibc" or _numbers(libc[1]) < OLDEST_GLIBC:
        found = " ".join(map(str, libc)).strip() if isinstance(libc, list) else ""
        raise HostError(
            f"{interpreter} runs on {found or 'another libc'}, "
            f"needed: glibc {_text(OLDEST_GLIBC)} or newer"
        )
    return HostPython(f"cp{version[0]}{version[1]}", str(arch), interpreter)


def tree_name(loader: str, python: HostPython) -> str:
    """Name of the release that adds, for this Python, its dependencies to the release `loader`."""
    name = f"{loader}-{python.tag}-{python.arch}-{FORMAT}"
    if python.interpreter != INTERPRETER:
        name += "-" + hashlib.sha256(python.interpreter.encode()).hexdigest()[:6]
    return name


def _text(version: object) -> str:
    return ".".join(map(str, version)) if isinstance(version, (list, tuple)) else str(version)


def _numbers(text: object) -> tuple[int, ...]:
    return tuple(int(part) for part in str(text).split(".") if part.isdigit())
