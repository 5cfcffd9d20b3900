# SPDX-License-Identifier: GPL-3.0-or-later
"""A config service on the loopback address, and Ansible's own commands against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from btfleet.config.v1.config_pb2 import ClientGetConfigsRequest

from tests.unit.conftest import CHECKOUT
from tests.unit.service.conftest import settings, simulator, tmp_path
from tests.unit.service.test_service import World, bearer, poll_of, world, write_tokens

__all__ = ["settings", "simulator", "tmp_path", "world"]  # fixtures

OPERATOR = "token-of-op"
BIN = Path(sys.executable).parent


@dataclass
class Fleet:
    """A service, hosts that poll it, and a control node's folder beside it."""

    world: World
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    source: Path = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.folder / "test.btfleet.yml"

    def has(self, *hosts: str) -> None:
        """Makes these the hosts that have tokens: each its name."""
        write_tokens(
            self.world.settings.tokens,
            {host: [f"token-of-{host}"] for host in hosts},
            {"op": [OPERATOR]},
        )

    def poll(self, request: ClientGetConfigsRequest) -> None:
        """A host polls, with its own token."""
        self.world.poll(request, token=f"token-of-{request.client.id}")

    def hears(self, host: str, **says: Any) -> ClientGetConfigsRequest:
        """A host is up to date and has nothing to complain of, but for what it `says`."""
        request = poll_of(host, targets_version=1, **says)
        request.client.health.healthy = True
        self.poll(request)
        return request

    def write(self, **config: Any) -> Path:
        """The inventory file; a setting that is None is left out."""
        defaults = {
            "plugin": "btfleet.conntrack.fleet",
            "service": f"localhost:{self.world.daemon.port}",
            "ca": "ca.pem",
            "token_file": "operator.token",
        }
        known = {key: value for key, value in {**defaults, **config}.items() if value is not None}
        self.source.write_text(yaml.safe_dump(known))
        return self.source

    def ansible(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """One of Ansible's commands, with the inventory; a source that fails makes it fail."""
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "5000",
            **self.environment,
        }
        return subprocess.run(
            [str(BIN / command), "-i", str(self.source), *words],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def inventory(self, *words: str) -> Inventory:
        """What ansible-inventory makes of the file."""
        done = self.ansible("ansible-inventory", "--list", *words)
        assert done.returncode == 0, done.stderr
        return Inventory(json.loads(done.stdout, object_hook=_unmarked), _unwrapped(done.stderr))

    def failure(self, *words: str) -> str:
        """What it says where it fails."""
        done = self.ansible("ansible-inventory", "--list", *words)
        assert done.returncode != 0, done.stdout
        return _unwrapped(done.stderr)


def _unwrapped(text: str) -> str:
    """Before 2.19 Ansible breaks long lines."""
    return " ".join(text.split())


def _unmarked(found: dict[str, Any]) -> Any:
    """ansible-inventory writes text that is no template as {"__ansible_unsafe": text}."""
    return found["__ansible_unsafe"] if found.keys() == {"__ansible_unsafe"} else found


@dataclass
class Inventory:
    """The output of `ansible-inventory --list`."""

    data: dict[str, Any]
    warnings: str

    def variables(self, host: str) -> dict[str, Any]:
        """A host's."""
        found: dict[str, Any] = self.data["_meta"]["hostvars"][host]
        return found

    @property
    def hosts(self) -> list[str]:
        """All of them."""
        return sorted(self.data["_meta"]["hostvars"])

    def group(self, name: str) -> list[str]:
        """Who is in it, those of groups within it as well."""
        found = self.data.get(name, {})
        hosts = set(found.get("hosts", ()))
        for child in found.get("children", ()):
            hosts.update(self.group(child))
        return sorted(hosts)

    @property
    def groups(self) -> set[str]:
        """The names of all groups that somebody is in."""
        return {name for name in self.data if self.group(name)} - {"_meta", "all", "ungrouped"}


@pytest.fixture
def fleet(world: World, tmp_path: Path) -> Fleet:
    """Running, with the hosts h1 and h2, which have not polled yet."""
    world.start()
    folder = tmp_path / "control"
    (folder / "tmp").mkdir(parents=True)
    (folder / "ca.pem").write_bytes(world.authority.certificate)
    (folder / "operator.token").write_text(f"{OPERATOR}\n")
    found = Fleet(world, folder)
    found.has("h1", "h2")
    found.write()
    return found


def metadata_of(host: str) -> tuple[tuple[str, str | bytes], ...]:
    """A poll's, with the host's own token."""
    return bearer(f"token-of-{host}")
