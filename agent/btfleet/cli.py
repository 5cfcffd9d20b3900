# SPDX-License-Identifier: GPL-3.0-or-later
"""The `btfleet` command. Each sub-command's code is imported only when it is called for."""

from __future__ import annotations

import errno
import os
import sys

from btfleet import __version__, quick
from btfleet._kernel.errors import TrackerError

TYPE_CHECKING = False  # typing's own costs a look-up more than all the rest
if TYPE_CHECKING:
    import argparse

# Exit codes (docs/guide.md): 0 done, 1 the answer is no, 2 wrong usage (argparse's own),
# 3 it failed, 4 not known without root, 5 the tracker is well and the agent is not, 6 the answer is
# of a flow that has ended
FAILED = 3


def _parser() -> argparse.ArgumentParser:
    import argparse  # noqa: PLC0415 not for a look-up

    parser = argparse.ArgumentParser(
        prog="btfleet", description="The NAT-aware connection tracker of this host."
    )
    parser.add_argument("--version", action="version", version=f"btfleet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    check = commands.add_parser(
        "check",
        help="can this kernel run the object, and why not better; exit code 1 if not, 4 if only "
        "root can tell",
    )
    check.add_argument("--json", action="store_true", help="all facts, as one JSON object")
    check.set_defaults(run="check_command")

    load = commands.add_parser("load", help="bring the kernel to the spec file")
    load.add_argument("--spec", metavar="FILE", help="default: /etc/btfleet/spec.json")
    load.add_argument(
        "--hold",
        action="store_true",
        help="stay where a process has to keep the tracker (what the boot unit runs)",
    )
    load.set_defaults(run="load_command")

    reconcile = commands.add_parser(
        "reconcile",
        help="bring the maps to what the kernel has: add flows that were missed, close those that "
        "have ended",
    )
    reconcile.add_argument(
        "--if-needed", action="store_true", help="only if flows were missed (what the timer runs)"
    )
    reconcile.add_argument("--json", action="store_true", help="the result as one JSON object")
    reconcile.set_defaults(run="reconcile_command")

    status = commands.add_parser(
        "status",
        help="what is loaded, and which remote config is in force; exit code 1 if not as loaded, "
        "5 if only the agent is not well",
    )
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run="status_command")

    service = commands.add_parser("config-service", help="verify signed configs and answer polls")
    service.add_argument(
        "--settings",
        metavar="FILE",
        default="/etc/btfleet/config-service.json",
        help="default: /etc/btfleet/config-service.json",
    )
    service.add_argument("--check", action="store_true", help="only check settings and files")
    service.set_defaults(run="service_command")

    agent = commands.add_parser("agent", help="fetch, verify and apply this host's remote config")
    agent.add_argument(
        "--settings",
        metavar="FILE",
        default="/etc/btfleet/agent.json",
        help="default: /etc/btfleet/agent.json",
    )
    agent.set_defaults(run="agent_command")

    conntrack = commands.add_parser("conntrack", help="look at translations")
    _conntrack(conntrack.add_subparsers(metavar="COMMAND", required=True))
    return parser


def _conntrack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    dump = commands.add_parser("dump", help="all translations, or those that match")
    dump.add_argument("--json", action="store_true", help="one JSON object a line")
    dump.add_argument("--state", choices=("live", "closed", "all"), default="live")
    dump.add_argument("--limit", type=int, metavar="N", help="stop after N flows")
    _filters(dump)
    dump.set_defaults(run="conntrack_command", action="dump")

    lookup = commands.add_parser(
        "lookup",
        help="what a connection really is; exit code 1 if it is not translated, 6 if it was and "
        "has ended",
        description="Either direction may be given: 192.0.2.1:80, or [2001:db8::1]:80. It is "
        "looked for in its own namespace and in the root one; a flow that lives comes before one "
        "that has ended.",
    )
    lookup.add_argument("source", metavar="SRC:PORT")
    lookup.add_argument("destination", metavar="DST:PORT")
    lookup.add_argument("--protocol", default="tcp", help="default: tcp")
    lookup.add_argument("--netns", help="inode number or `ip netns` name (default: the caller's)")
    lookup.add_argument("--zone", type=int, default=0, help="conntrack zone (default: 0)")
    lookup.add_argument("--json", action="store_true", help="one JSON object")
    lookup.set_defaults(run="lookup_command")

    watch = commands.add_parser("watch", help="translations as they come (+) and go (-)")
    watch.add_argument("--interval", type=float, default=1.0, metavar="S", help="default: 1")
    watch.add_argument("--json", action="store_true", help="one JSON object a line")
    _filters(watch)
    watch.set_defaults(run="conntrack_command", action="watch")


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--netns", help="inode number or `ip netns` name")
    parser.add_argument("--address", help="at either end, before or after translation")
    parser.add_argument("--port", type=int, help="at either end, before or after translation")
    parser.add_argument("--protocol", help="name or number")


def _open_standard_streams() -> None:
    """Give what was closed by the caller (`>&-`) a place: the exit code is an answer as well."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 kept open
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 kept open


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    _open_standard_streams()
    words = sys.argv[1:] if arguments is None else arguments
    options = quick.parse(words) or _parser().parse_args(words)
    try:
        # What importlib would do; it costs a look-up a part of what it may
        module = __import__(f"btfleet.{options.run}", fromlist=["run"])
        code: int = module.run(options)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as exc:
        # The plain release has none of the daemons' packages; a module of our own is a defect
        if (exc.name or "").startswith("btfleet"):
            raise
        from btfleet.dependencies import missing  # noqa: PLC0415 for this line alone

        print(f"btfleet: {missing(exc)}", file=sys.stderr)
    except TrackerError as exc:
        print(f"btfleet: {exc}", file=sys.stderr)
    except PermissionError as exc:
        where = f" {exc.filename}" if exc.filename else ""
        print(f"btfleet: no permission{where}: run it as root", file=sys.stderr)
    except BrokenPipeError:
        # The reader has seen enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        print(f"btfleet: {where}{exc.strerror or exc}", file=sys.stderr)
        if (
            exc.errno == errno.ENOSPC
        ):  # what is left would fail again at exit, with a code of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return FAILED
