# SPDX-License-Identifier: GPL-3.0-or-later
"""Run programs, with one clear line when they fail."""

from __future__ import annotations

import subprocess

from .errors import NatError


def run(argv: list[str], text: str | None = None, ok: tuple[int, ...] = (0,)) -> str:
    """The program's output; NatError unless it ends with one of `ok`."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NatError(f"{argv[0]} is not installed") from error
    except OSError as error:
        raise NatError(f"cannot run {argv[0]}: {error.strerror}") from error
    if done.returncode not in ok:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0]
        raise NatError(f"'{' '.join(argv)}' ended with {done.returncode}: {last}")
    return done.stdout


def run_hook(command: str) -> str:
    """A shell command given by the user."""
    return run(["sh", "-c", command])
