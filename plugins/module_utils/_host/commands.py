# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running commands of the host, for those who handle failures themselves."""

from __future__ import annotations

import os
from typing import Any, Callable, List, Tuple

# Runs a command: its exit code, output and errors
Runner = Callable[[List[str]], Tuple[int, str, str]]

# What a shell ends with for a command that is not there
NOT_FOUND = 127


def runner(module: Any) -> Runner:
    """Return the AnsibleModule's run_command, for which a missing command is a failed one.

    By itself it ends the module there, before anybody can say what was needed.
    """

    def run(command: list[str]) -> tuple[int, str, str]:
        try:
            code, output, errors = module.run_command(command, handle_exceptions=False)
        except OSError as exc:
            return NOT_FOUND, "", f"{command[0]}: {os.strerror(exc.errno or 0)}"
        return code, output, errors

    return run
