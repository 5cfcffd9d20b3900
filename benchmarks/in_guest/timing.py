# SPDX-License-Identifier: GPL-3.0-or-later
"""Timing things that are to be compared: in turns, so that whatever else goes on hits all alike."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

Series = dict[str, list[float]]


def in_turns(rounds: int, actions: Mapping[str, Callable[[], float]]) -> Series:
    """Each action once to warm up, then `rounds` times; what it returns is the measurement."""
    for action in actions.values():
        action()
    found: Series = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            found[name].append(action())
    return found


def seconds(action: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def command(words: Sequence[str], output: str = os.devnull) -> Callable[[], float]:
    """A command as an action: from its start to its end, its output into a file."""

    def run() -> None:
        with open(output, "wb") as sink:
            subprocess.run(words, stdout=sink, stderr=subprocess.DEVNULL, check=True)

    return lambda: seconds(run)


def peak_memory(words: Sequence[str]) -> int:
    """The peak resident memory of a command, in kB."""
    with open(os.devnull, "wb") as sink:
        process = subprocess.Popen(words, stdout=sink)
        _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, words)
    return usage.ru_maxrss
