# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet config-service`: what btfleet-config-service.service runs."""

from __future__ import annotations

import argparse
import logging
import queue
import signal
import sys

from btfleet.load_command import notify
from btfleet.service import settings as settings_
from btfleet.service.daemon import Daemon
from btfleet.service.errors import ServiceError


def run(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; SIGHUP refreshes. Exit code 3 if it cannot start."""
    # The journal has time and unit; below a terminal they are not missed
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        daemon = Daemon(settings_.read(options.settings))
        if options.check:
            daemon.close()
            print(f"{options.settings}: all is as it should be")
            return 0
        _serve(daemon)
    except ServiceError as exc:
        print(f"btfleet: {exc}", file=sys.stderr)
        return 3
    return 0


def _serve(daemon: Daemon) -> None:
    # A handler only notes the signal: it runs between any two steps of the main thread
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: signals.put(number))
    with daemon.running():
        notify(f"READY=1\nSTATUS=listening on {daemon.settings.listen}")
        while signals.get() == signal.SIGHUP:
            daemon.refresh_now()
        notify("STOPPING=1")
