# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills a reader, and loaders (SIGKILL) at many moments of a load that changes the spec.

    python3 -m guest.kills [--times 30]

After each kill: the record is that of the old or of the new spec, both programs of a whole set
are attached, and one `btfleet load` without any help leads to a verified state. Exit code 1, and
one line, for the first thing that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from . import kernel_view
from .commands import PINS, SPEC_FILE, GuestError, bpftool, run, status

NEW = "new_"
PATIENCE = 120.0


def specs() -> list[dict[str, Any]]:
    """The spec in force, and one with other settings and other map sizes."""
    one = json.loads(SPEC_FILE.read_text())
    other = {**one, "udpv6_enabled": not one["udpv6_enabled"]}
    other.update(max_entries=one["max_entries"] // 2, closed_entries=one["closed_entries"] // 2)
    return [one, other]


def _pins() -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir(PINS))
    return set()


def kill_one(path: Path, delay: float | None, extra: float) -> str:
    """Starts a load and kills it: after `delay`, or `extra` after its first new pin is seen.

    Says when that was, as far as the pins show it.
    """
    loader = subprocess.Popen(
        ["btfleet", "load", "--spec", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + (PATIENCE if delay is None else delay)
    while time.monotonic() < deadline and loader.poll() is None:
        if delay is None and any(name.startswith(NEW) for name in _pins()):
            end = time.monotonic() + extra
            while time.monotonic() < end:
                pass
            break
    loader.send_signal(signal.SIGKILL)
    code = loader.wait()
    left = {name for name in _pins() if name.startswith(NEW)}
    if code != -signal.SIGKILL:
        return "ended before the kill"
    if NEW + "loaded" in left:
        return "killed with a complete new set"
    if left:
        return "killed with half of a new set"
    return "killed without new pins"


def kill_reader() -> None:
    """Nothing in the kernel depends on a reader."""
    before = kernel_view.look()
    with subprocess.Popen(
        ["btfleet", "conntrack", "watch", "--json"], stdout=subprocess.PIPE
    ) as reader:
        if reader.stdout is None or not reader.stdout.readline():
            raise GuestError("`btfleet conntrack watch` said nothing while flows were made")
        reader.send_signal(signal.SIGKILL)
    if kernel_view.look() != before:
        raise GuestError("the tracker is another one after a reader was killed")


def check_after_kill(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Whatever was interrupted: the record is the old or the new one, and something tracks."""
    record = status()["record"]
    if record is None or record["spec"] not in (old, new):
        raise GuestError(f"after a kill the spec in force is {record and record['spec']}")
    attached = {link["prog_id"] for link in bpftool("link", "show")}
    names = {one["name"] for one in bpftool("prog", "show") if one["id"] in attached}
    for role in ("insert", "delete"):
        if not any(name.endswith(f"_{role}") for name in names):
            raise GuestError(f"after a kill no {role} program is attached")


def check_repaired(wanted: dict[str, Any]) -> None:
    """One load, without any help, has led to a whole set of the wanted spec."""
    said = status()
    if not said["healthy"] or said["record"]["spec"] != wanted:
        raise GuestError(f"a load after a kill left {said['drift'] or said['record']['spec']}")
    left = [name for name in _pins() if name.startswith(NEW)]
    if left:
        raise GuestError(f"a load after a kill left the pins {', '.join(left)}")


def work(times: int, seed: int) -> dict[str, object]:
    """The counted outcomes."""
    chance = random.Random(seed)  # noqa: S311
    outcomes: Counter[str] = Counter()
    kill_reader()
    with tempfile.TemporaryDirectory(prefix="btfleet-kills-") as folder:
        paths = [Path(folder) / "one.json", Path(folder) / "other.json"]
        both = specs()
        for path, spec in zip(paths, both, strict=True):
            path.write_text(json.dumps(spec))
        begin = time.monotonic()
        run("btfleet", "load", "--spec", str(paths[1]))
        whole = time.monotonic() - begin
        for number in range(times):
            to = number % 2
            # Half of the kills hit the short moment in which pins are made and swapped
            delay = None if number % 4 >= 2 else chance.uniform(0.0, whole)
            outcomes[kill_one(paths[to], delay, chance.uniform(0.0, 0.02))] += 1
            check_after_kill(both[1 - to], both[to])
            run("btfleet", "load", "--spec", str(paths[to]))
            check_repaired(both[to])
        kernel_view.verify(both[(times - 1) % 2])
        run("btfleet", "load")
    return {"kills": dict(outcomes), "seed": seed, "seconds_of_a_load": round(whole, 2)}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    try:
        print(json.dumps(work(options.times, options.seed)))
    except GuestError as error:
        print(f"{error} (seed {options.seed})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
