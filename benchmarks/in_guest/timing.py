# SPDX-License-Identifier: GPL-3.0-or-later
"""Timing things that are to be compared: in turns, so that whatever else goes on hits all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Series = dict[str, list[float]]


def in_turns(rounds: int, actions: Mapping[str, Callable[[], float]]) -> Series:
    """Each action once to warm up, then `rounds` times; what it returns is the measurement."""
    for action in actions.values():
        action()
    found: Series = {name: [] for name in actions}
    for _round in range(rounds):
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
    """The peak resident memory of a command, in kB.

    Looked at while it runs: what wait4(2) says starts at the memory of the process that forked.
    """
    peak = 0
    with open(os.devnull, "wb") as sink, subprocess.Popen(words, stdout=sink) as process:
        while process.poll() is None:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
            with open(f"/proc/{process.pid}/cmdline", "rb") as stream:
                is_itself = words[0].encode() in stream.read()
            if found and is_itself:
                peak = max(peak, int(found[0]))
            time.sleep(0.01)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, words)
    return peak


def answer(measure: Callable[[dict[str, int]], Series]) -> None:
    """A script's whole life: options as JSON in its argument, series as JSON on stdout."""
    print(json.dumps(measure(json.loads(sys.argv[1]))))
