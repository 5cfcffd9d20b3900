# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet load`: what the units run, at boot and when the poller agent asks for another spec."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import replace

from btfleet._config.effective_load import answer_request, read_base, settle
from btfleet._kernel.backends.holder import Holder
from btfleet._kernel.backends.netlink.follower_process import OwnThread
from btfleet._kernel.conntrack.record_map import is_followed
from btfleet._kernel.errors import LoadUnfinished
from btfleet._kernel.host.support import HELD
from btfleet._kernel.loader.load import Outcome, Tracker


def notify(state: str) -> None:
    """Tells systemd (sd_notify(3)); does nothing where systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(state.encode())


def run(options: argparse.Namespace) -> int:
    """Loads the spec, with what remote config wants over it, and says what is in force.

    A spec file that was named is loaded as it is. With --hold, it stays where a process has to keep
    the tracker: it follows conntrack events in the tier netlink, and holds links that the kernel
    cannot pin.
    """
    tracker = Tracker(stays=options.hold)
    try:
        outcome = _load(tracker, options)
    except LoadUnfinished as exc:
        if not options.hold:
            raise
        # It is active, so this process has to keep it all the same
        print(f"btfleet: {exc}", file=sys.stderr)
        outcome = Outcome(True, exc.record)
    what = "loaded" if outcome.changed else "already in force:"
    short = str(outcome.record["fingerprint"])[:12]
    print(f"{what} spec {short}, tier {outcome.record['tier']}", flush=True)
    # Not before the load: what runs must not depend on whether that succeeds
    keeper = _keeper(tracker, outcome) if options.hold else None
    notify(f"READY=1\nSTATUS=spec {short}, tier {outcome.record['tier']}")
    if keeper:
        keeper.wait()
    return 0


def _keeper(tracker: Tracker, outcome: Outcome) -> OwnThread | Holder | None:
    """What this process has to stay for."""
    if is_followed(outcome.record):
        return tracker.follow()
    return tracker.hold_links() if outcome.record["lifecycle"] == HELD else None


def _load(tracker: Tracker, options: argparse.Namespace) -> Outcome:
    if options.spec:
        tracker = replace(tracker, store=replace(tracker.store, spec_path=options.spec))
        return tracker.load(read_base(tracker.store))
    outcome, effective = settle(tracker, answer_request)
    if effective.reason is not None:
        print(
            f"btfleet: what remote config wants is not in force ({effective.reason}): the base is",
            file=sys.stderr,
        )
    return outcome
