# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `python3 -m lab --help`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from lab import guests, qemu, ssh
from lab.catalogue import HOSTS, Host, find_host
from lab.errors import LabError
from lab.image import ensure_image
from lab.paths import DEFAULT_STATE
from lab.setup_machine import setup


def say(text: str) -> None:
    """Progress goes to stderr, results to stdout."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    """Of "2" or "1,2", each of them at least 1; ValueError for anything else."""
    found = [int(number) for number in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    names = ", ".join(HOSTS)
    parser = argparse.ArgumentParser(
        prog="python3 -m lab", description=f"Real Debian guests: {names}."
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=DEFAULT_STATE,
        help="folder of the guests and their inventory (default: build/lab)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="install QEMU and what else the lab needs on this machine")
    up = commands.add_parser("up", help="boot guests, wait for ssh, write inventory.yml")
    up.add_argument("names", nargs="+", metavar="name", help=names)
    up.add_argument(
        "--append",
        default="",
        metavar="ARGS",
        help="kernel arguments for guests that this call starts",
    )
    up.add_argument(
        "--memory", type=int, metavar="MB", help="memory of guests that this call starts"
    )
    up.add_argument(
        "--cpus",
        type=numbers,
        metavar="N[,N...]",
        help="processors of guests that this call starts: of all, or of each of the names",
    )
    up.add_argument(
        "--icount",
        action="store_true",
        help="one processor, and a clock that counts its instructions, 1 ns each, instead of time",
    )
    up.add_argument(
        "--timeout",
        type=float,
        default=300,
        metavar="S",
        help="how long to wait for ssh (300 s)",
    )
    down = commands.add_parser("down", help="stop guests and throw their disks away")
    down.add_argument("names", nargs="*", metavar="name", help="default: all of the state folder")
    down.add_argument(
        "--all", action="store_true", help="every guest of this checkout, molecule's too"
    )
    image = commands.add_parser("image", help="build images without booting them")
    image.add_argument("names", nargs="+", metavar="name", help=names)
    image.add_argument("--rebuild", action="store_true", help="build anew, for newer packages")
    commands.add_parser("status", help="list the running guests")
    shell = commands.add_parser("ssh", help="log in to a guest, or run a command in it")
    shell.add_argument("name", help=names)
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="command")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is returned."""
    options = build_parser().parse_args(arguments)
    try:
        run_command(options)
    except LabError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; `python3 -m lab down` removes guests that were started")
        return 130
    return 0


def run_command(options: argparse.Namespace) -> None:
    """What the chosen command does."""
    state: Path = options.state.resolve()
    if options.command == "setup":
        installed = setup()
        if installed:
            say(f"installed {', '.join(installed)}")
    elif options.command == "up":
        hosts = choose_hosts(options.names, options.cpus, options.icount)
        print(guests.start(hosts, state, say, options.append, options.memory, options.timeout))
    elif options.command == "down":
        for name in options.names:
            find_host(name)
        for folder in guests.checkout_states() if options.all else [state]:
            guests.stop(options.names, folder, say)
    elif options.command == "image":
        for name in dict.fromkeys(options.names):
            print(ensure_image(find_host(name).image, say, rebuild=options.rebuild).disk.parent)
    elif options.command == "status":
        print_status(state)
    elif options.command == "ssh":
        login(options.name, options.words, state)


def choose_hosts(
    names: Sequence[str], cpus: Sequence[int] | None, icount: bool = False
) -> list[Host]:
    """The named hosts, with these processors instead of the catalogue's: one number, or one a name.

    A name given twice is one guest. With `icount` they count instructions, on one processor.
    LabError for a name that is not known and for other numbers.
    """
    if icount:
        if cpus is not None and set(cpus) != {1}:
            raise LabError("--icount counts the instructions of one processor: leave --cpus out")
        return [find_host(name).counting() for name in dict.fromkeys(names)]
    if cpus is None:
        return [find_host(name) for name in dict.fromkeys(names)]
    if len(cpus) not in (1, len(names)):
        raise LabError(
            f"--cpus has {len(cpus)} numbers for {len(names)} guests: give one for all of them, "
            "or one for each"
        )
    counts = dict(zip(names, cycle(cpus)))
    return [dataclasses.replace(find_host(name), cpus=count) for name, count in counts.items()]


def print_status(state: Path) -> None:
    """One line a running guest."""
    running = qemu.running_guests(state)
    if not running:
        say(f"no guest is running in {state}")
    for name, guest in running.items():
        answers = ssh.answers(guest.port, ssh.private_key(), timeout=5)
        facts = (
            f"port {guest.port}",
            guest.accelerator + (", icount" if guest.icount else ""),
            f"{guest.memory_mb} MB",
            f"pid {guest.pid}",
            "ssh answers" if answers else "ssh does not answer",
            f"console {Path(guest.pid_file).with_name('console.log')}",
        )
        print("  ".join((name, *facts)))


def login(name: str, words: Sequence[str], state: Path) -> None:
    """Become ssh."""
    guest = qemu.running_guests(state).get(find_host(name).name)
    if guest is None:
        raise LabError(f"{name} is not running in {state}: run `python3 -m lab up {name}`")
    os.execvp("ssh", [*ssh.command_line(guest.port, ssh.private_key()), *words])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
