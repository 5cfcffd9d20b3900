# SPDX-License-Identifier: GPL-3.0-or-later
"""Polls as fast as they go, from a process of its own on another CPU.

python -m benchmarks.remote_config.load PORT CA HOSTS SECONDS KIND CPU prints polls and seconds.
KIND: `same` (each host says what it said before), `news` (something new each time), `once` (every
host polls one time).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from benchmarks.remote_config import fleet

CHANNELS = 10
WORKERS = 50


class Worker(threading.Thread):
    """Polls for its share of the hosts, one after the other."""

    def __init__(self, call: Any, hosts: range, kind: str, go: threading.Barrier) -> None:
        super().__init__(daemon=True)
        self._call, self._kind, self._go = call, kind, go
        # `news`: three different requests a host, so that none is the one before
        notes = [""] if kind != "news" else ["a", "b", "c"]
        self._polls = [
            (fleet.request(number, 1, note), (("authorization", f"Bearer {fleet.token(number)}"),))
            for note in notes
            for number in hosts
        ]
        self.done = 0
        self.until = 0.0

    def run(self) -> None:
        """Until the time is over; a poll that is not empty is an error."""
        self._go.wait()
        while True:
            for raw, metadata in self._polls:
                if self._kind != "once" and time.monotonic() >= self.until:
                    return
                if self._call(raw, metadata=metadata) != b"":
                    os._exit(3)
                self.done += 1
            if self._kind == "once":
                return


def main() -> None:
    """See above."""
    port, ca, hosts, seconds, kind, cpu = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [
        grpc.secure_channel(f"localhost:{port}", credentials, options) for _n in range(CHANNELS)
    ]
    for channel in channels:
        grpc.channel_ready_future(channel).result(30)
    go = threading.Barrier(WORKERS + 1)
    workers = [
        Worker(
            channels[n % CHANNELS].unary_unary(fleet.METHOD),
            range(n, int(hosts), WORKERS),
            kind,
            go,
        )
        for n in range(WORKERS)
    ]
    started = time.monotonic()
    for worker in workers:
        worker.until = started + float(seconds)
        worker.start()
    go.wait()
    started = time.monotonic()
    for worker in workers:
        worker.join()
    print(sum(worker.done for worker in workers), time.monotonic() - started)


if __name__ == "__main__":
    main()
