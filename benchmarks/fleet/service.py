# SPDX-License-Identifier: GPL-3.0-or-later
"""A config service on this machine for the guests, and what their rollout is told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from btfleet.service.daemon import Daemon

from benchmarks.remote_config import fleet
from lab.paths import CHECKOUT

# As guests see this machine's loopback
ADDRESS = "10.0.2.2"


@contextmanager
def running(folder: Path, hosts: list[str]) -> Iterator[dict[str, Any]]:
    """Serves while it is open; gives the variables of a rollout, an inventory's `all.vars`."""
    _run("remote.certificates", str(folder), ADDRESS, "localhost")
    _run("remote.tokens", str(folder), *hosts)
    # The publisher is a part of the collection, and is found by its name
    sys.path.append(str(CHECKOUT / "build" / "collections"))
    from tests.unit.publisher.places import Place, config  # noqa: PLC0415

    place = Place(folder / "place")
    place.converge()
    place.publish(config(content={"max_entries": 65536}))
    for name in ("director", "config"):
        (folder / f"{name}-root.json").write_bytes(place.first_root(name))
    daemon = Daemon(replace(fleet.settings(folder), repository=str(place.root)))
    with daemon.running():
        yield {
            "conntracker_batches": ["100%"],
            "conntracker_settle_seconds": 180,
            "conntracker_agent": True,
            "conntracker_agent_service": f"{ADDRESS}:{daemon.port}",
            "conntracker_agent_ca": str(folder / "ca.pem"),
            "conntracker_agent_director_root": str(folder / "director-root.json"),
            "conntracker_agent_token": "{{ lookup('ansible.builtin.file',"
            " secrets_folder ~ '/token-' ~ inventory_hostname) }}",
            "btfleet_remote_config_keys": ["CONNTRACK.max_entries"],
            # Guests have no time server, and the certificates are made for two days
            "compliance_time_sync": False,
            "compliance_thresholds": {"certificate_days": 1},
            "compliance_folder": str(folder / "reports"),
            "archive": max(map(str, CHECKOUT.glob("roles/conntracker/files/btfleet-*.tar.gz"))),
            "secrets_folder": str(folder),
        }


def write_inventory(path: Path, guests: Path, variables: dict[str, Any]) -> None:
    """A folder with the guests' inventory and the variables: JSON is YAML."""
    path.mkdir()
    (path / "1-guests.yml").write_text(guests.read_text())
    (path / "2-variables.yml").write_text(json.dumps({"all": {"vars": variables}}))


def _run(*words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", *words],
        cwd=CHECKOUT / "tests" / "integration",
        check=True,
        capture_output=True,
    )
