# SPDX-License-Identifier: GPL-3.0-or-later
"""What an idle poller agent costs a host: memory, CPU, time to its first poll.

    python -m benchmarks.poller_agent [--seconds 60]

Runs the agent as a process against a config service on loopback that answers as an up-to-date
fleet's does, and prints one JSON object. No guest is needed; no tracker is read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import write_atomically
from btfleet.config.v1 import config_pb2 as pb

from benchmarks.machine import of_host
from tests.unit.poller.crafted_service import CraftedService
from tests.unit.poller.director import Director, content

INTERVAL = 5
# Read once before memory is: what a monitored host's agent takes
METRICS = "127.0.0.1:19463"
ROUNDS = 5
DAY = 86400


def deploy(folder: Path, service: CraftedService, director: Director) -> Path:
    """What Ansible deploys; the settings file."""
    (folder / "state").mkdir(exist_ok=True)
    files = {
        "token": service.token.encode(),
        "ca.pem": service.authority.certificate,
        "root.json": director.first_root,
        "spec.json": Spec("a" * 64).to_json().encode(),
    }
    settings = {
        "host": "gw1",
        "service": f"localhost:{service.port}",
        "ca": str(folder / "ca.pem"),
        "token_file": str(folder / "token"),
        "director_root": str(folder / "root.json"),
        "metrics_listen": METRICS,
        "socket": str(folder / "agent.sock"),
        "state_folder": str(folder / "state"),
        "poll_interval_seconds": INTERVAL,
    }
    for name, raw in {**files, "agent.json": json.dumps(settings).encode()}.items():
        write_atomically(str(folder / name), raw, 0o600)
    return folder / "agent.json"


@contextmanager
def agent(settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`btfleet agent`, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "btfleet", "agent", "--settings", str(settings)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "agent")},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def resident(pid: int) -> dict[str, int]:
    """Resident memory now and at most, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {
        name: re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE) for name in ("VmRSS", "VmHWM")
    }
    return {name: int(match[1]) * 1024 for name, match in found.items() if match}


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, seconds: float) -> dict[str, Any]:
    """All figures."""
    director = Director(expires=int(time.time()) + 30 * DAY)
    director.publish({"btfleet/1/AGENT/bench/level": content(log_level="info")})
    polled = threading.Event()

    def answer(
        request: pb.ClientGetConfigsRequest, _context: grpc.ServicerContext
    ) -> pb.ClientGetConfigsResponse:
        polled.set()
        is_current = request.client.state.targets_version == director.targets_version
        return pb.ClientGetConfigsResponse() if is_current else director.answer()

    service = CraftedService(answer)
    first_polls = []
    with service.running():
        settings = deploy(folder, service, director)
        for _number in range(ROUNDS):
            polled.clear()
            started = time.perf_counter()
            with agent(settings):
                if not polled.wait(60):
                    raise SystemExit("poller_agent: the agent has not polled within 60 s")
                first_polls.append(time.perf_counter() - started)
        with agent(settings) as process:
            polled.wait(60)
            time.sleep(2 * INTERVAL)
            with urllib.request.urlopen(f"http://{METRICS}/metrics") as page:
                page.read()
            before, polls, begun = cpu_seconds(process.pid), len(service.requests), time.monotonic()
            time.sleep(seconds)
            used = cpu_seconds(process.pid) - before
            elapsed, polls = time.monotonic() - begun, len(service.requests) - polls
            memory = resident(process.pid)
    return {
        "start_to_first_poll_seconds": {
            "median": round(statistics.median(first_polls), 3),
            "all": [round(each, 3) for each in first_polls],
        },
        "resident_bytes": memory["VmRSS"],
        "resident_peak_bytes": memory["VmHWM"],
        "poll_interval_seconds": INTERVAL,
        "polls": polls,
        "idle_cpu_share": round(used / elapsed, 5),
        "cpu_seconds_a_poll": round(used / polls, 5) if polls else None,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.poller_agent", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to watch it idle")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="btfleet-") as folder:
        print(json.dumps({"host": of_host(), **measure(Path(folder), options.seconds)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
