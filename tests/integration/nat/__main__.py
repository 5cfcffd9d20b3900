# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: `python3 -m nat all`, or step by step."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable

from . import checks, churn, readings, responder, reuse, stress, successors, topology, traffic
from .commands import run_hook
from .errors import NatError
from .report import Report

FLOWS = 1200
MIN_FLOWS = 1000
ROUNDS = 5


def up() -> dict[str, object]:
    """Namespaces, rules, and the answering end."""
    summary = topology.up()
    responder.start(traffic.usable_groups())
    return summary


def _all(report: Report, options: argparse.Namespace) -> None:
    half = -(-options.flows // 2)
    steps: list[tuple[str, Callable[[], object]]] = [
        ("up", up),
        ("traffic, first half", lambda: traffic.start(half)),
        ("load", lambda: run_hook(options.load_command)),
        ("traffic, second half", lambda: traffic.start(half)),
        ("wait", lambda: time.sleep(options.settle)),
        ("compare", lambda: checks.compare(report, options.dump_command, options.min_flows)),
        ("port reuse", lambda: reuse.start(options.rounds)),
        ("wait", lambda: time.sleep(options.settle)),
        ("compare again", lambda: checks.compare(report, options.dump_command, options.min_flows)),
        ("flush", readings.flush),
        ("wait", lambda: time.sleep(options.settle)),
        ("check closed", lambda: checks.check_closed(report, options.dump_command)),
    ]
    try:
        for name, work in steps:
            if name != "load" or options.load_command:
                _step(report, name, work)
    finally:
        _step(report, "down", topology.down)


def _step(report: Report, name: str, work: Callable[[], object]) -> None:
    print(f"== {name}", flush=True)
    begin = time.monotonic()
    detail = work()
    report.add(name, True, {"seconds": round(time.monotonic() - begin, 1), "result": detail})


def _churn(report: Report, options: argparse.Namespace) -> None:
    if options.action == "start":
        _step(
            report,
            "churn start",
            lambda: churn.start(options.rate, options.seconds, options.leave_out, options.forget),
        )
    elif options.action == "stop":
        _step(report, "churn stop", churn.stop)
    elif options.action == "look":
        checks.check_churn(report, options.dump_command, options.since, options.until)
    else:
        _step(report, "churn end", lambda: churn.finish(options.seconds))
        checks.check_churn(report, options.dump_command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m nat", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, dumps: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        if dumps:
            made.add_argument("--dump-command", default=readings.DUMP, help="the command to test")
        return made

    command("up", "build the namespaces and start the answering end")
    command("traffic", "open flows and keep them open").add_argument(
        "--flows", type=_count, default=FLOWS
    )
    command("reuse", "use the same tuples again and again").add_argument(
        "--rounds", type=_count, default=ROUNDS
    )
    made = command(
        "churn", "open and close flows all the time; check waits for its end, look does not", True
    )
    made.add_argument("action", choices=("start", "stop", "check", "look"))
    made.add_argument("--since", type=float, default=0.0, help="Unix seconds; for look")
    made.add_argument("--until", type=float, default=math.inf, help="the same")
    made.add_argument("--rate", type=_count, default=50, help="flows a second")
    made.add_argument("--seconds", type=_count, default=60, help="how long, or how long to wait")
    made.add_argument("--leave-out", metavar="FAMILY/PROTOCOL", help="as in ipv6/udp")
    made.add_argument("--forget", action="store_true", help="delete some of the closed flows")
    made = command("compare", "the dump against conntrack", True)
    made.add_argument("--min-flows", type=_count, default=MIN_FLOWS)
    command("flush", "empty the conntrack tables")
    command("check-closed", "after a flush: nothing live, closed flows still known", True)
    command("down", "remove everything")
    command("successors", "nobody is answered by a dead flow").add_argument(
        "--lookup-command", default=readings.LOOKUP, help="the command to test"
    )
    made = command("stress", "flows come in the middle of deletes; then both tables", True)
    made.add_argument("--way", choices=stress.WAYS, default=stress.FLUSH)
    made.add_argument("--seconds", type=float, default=60.0)
    made.add_argument(
        "--repaired-within",
        type=float,
        default=0.0,
        metavar="S",
        help="how long what was missed may take to be put right",
    )
    made = command("all", "everything in turn", True)
    made.add_argument("--flows", type=_count, default=FLOWS)
    made.add_argument("--min-flows", type=_count, default=MIN_FLOWS)
    made.add_argument("--rounds", type=_count, default=ROUNDS)
    made.add_argument(
        "--settle",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds before each comparison, where a process follows the kernel",
    )
    made.add_argument("--load-command", help="shell command to run after half of the traffic")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__ = "count"  # named in argparse's message


def _work(report: Report, options: argparse.Namespace) -> None:
    simple: dict[str, Callable[[], object]] = {
        "up": up,
        "traffic": lambda: traffic.start(options.flows),
        "reuse": lambda: reuse.start(options.rounds),
        "flush": readings.flush,
        "down": topology.down,
    }
    if options.command in simple:
        _step(report, options.command, simple[options.command])
    elif options.command == "churn":
        _churn(report, options)
    elif options.command == "compare":
        checks.compare(report, options.dump_command, options.min_flows)
    elif options.command == "check-closed":
        checks.check_closed(report, options.dump_command)
    elif options.command == "successors":
        successors.check(report, options.lookup_command)
    elif options.command == "stress":
        stress.run_all(report, options)
    else:
        _all(report, options)


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if all the checks held."""
    options = _parser().parse_args(arguments)
    report = Report()
    if os.geteuid() != 0:
        report.add("this test has to run as root", False)
        return report.finish()
    try:
        _work(report, options)
    except NatError as error:
        report.add(str(error), False)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
