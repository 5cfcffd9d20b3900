# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet agent`: what btfleet-agent.service runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading

from btfleet.load_command import notify
from btfleet.poller.errors import PollerError
from btfleet.poller.put_off import put_off
from btfleet.poller.settings import load

# sd-daemon(3): journald takes a line's priority from its start
_PRIORITIES = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>"}
_ERROR = "<3>"
FAILED = 3


class _JournalFormatter(logging.Formatter):
    """Lines with a priority for the journal, with the time for a person at a terminal."""

    def __init__(self, in_journal: bool) -> None:
        super().__init__("%(message)s" if in_journal else "%(asctime)s %(levelname)s %(message)s")
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._in_journal:
            return text
        priority = _PRIORITIES.get(record.levelno, _ERROR)
        return "\n".join(priority + line for line in text.split("\n"))


def set_up_log() -> None:
    """To stderr. The agent's own level is set by its settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter("JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("btfleet").setLevel(logging.INFO)
    # The library says at INFO and WARNING what we say in one line
    logging.getLogger("tuf").setLevel(logging.ERROR)
    # A line would ask asyncio for its task, and so load it
    vars(logging)["logAsyncioTasks"] = False


def _tell_systemd(state: str) -> None:
    with contextlib.suppress(OSError):  # systemd is not there for the moment
        notify(state)


def run(options: argparse.Namespace) -> int:
    """Runs until SIGTERM or SIGINT; exit code 3 if it cannot start, with one line why."""
    # gRPC's own C code writes to stderr otherwise
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    put_off()
    from btfleet.poller.agent import Agent  # noqa: PLC0415 after put_off()

    set_up_log()
    os.umask(0o077)
    # Before any thread is made, so that all have them blocked and `sigwait` gets them
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        agent = Agent(load(options.settings))
    except PollerError as exc:
        print(f"btfleet: {exc}", file=sys.stderr)
        return FAILED
    failures: list[BaseException] = []

    def poll() -> None:
        try:
            agent.run(
                lambda: _tell_systemd(f"READY=1\nSTATUS=polling {agent.settings.service}"),
                lambda: _tell_systemd("WATCHDOG=1"),
            )
        except PollerError as exc:
            print(f"btfleet: {exc}", file=sys.stderr)
            failures.append(exc)
        except BaseException as exc:  # without its loop the process must not stay
            logging.getLogger(__name__).exception("the agent failed")
            failures.append(exc)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=poll, name="poll-loop")
    thread.start()
    signal.sigwait(signals)
    _tell_systemd("STOPPING=1")
    agent.stop()
    thread.join()
    return FAILED if failures else 0
