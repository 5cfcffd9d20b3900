# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet load`: what btfleet-conntracker.service runs at boot."""

from __future__ import annotations

import argparse
import os
import socket
from dataclasses import replace

from btfleet.kernel.errors import InvalidSpec
from btfleet.kernel.tracker import Tracker


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
    """Loads the spec, and says what is in force."""
    tracker = Tracker()
    if options.spec:
        tracker = replace(tracker, store=replace(tracker.store, spec_path=options.spec))
    spec = tracker.store.read_spec()
    if spec is None:
        raise InvalidSpec(
            f"{tracker.store.spec_path} is missing: install the object first "
            "(module btfleet.conntrack.conntrack_object)"
        )
    outcome = tracker.load(spec)
    what = "loaded" if outcome.changed else "already in force:"
    print(f"{what} spec {spec.fingerprint[:12]}, tier {outcome.record['tier']}")
    notify(f"READY=1\nSTATUS=spec {spec.fingerprint[:12]}, tier {outcome.record['tier']}")
    return 0
