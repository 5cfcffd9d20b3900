# SPDX-License-Identifier: GPL-3.0-or-later
"""A place to publish to, and python-tuf's own client that reads it over HTTP."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.generations import (
    Generations,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.keys import (
    KeyFolder,
    Passphrases,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import REPOSITORIES
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.publisher import (
    ConfigsOutcome,
    Outcome,
    Publisher,
    Settings,
    role_settings,
)
from tuf.ngclient import Updater

PASSPHRASE = "correct horse battery"  # noqa: S105  (of keys that live as long as a test)


def config(name: str = "x", **more: Any) -> dict[str, Any]:
    """A config that is to be there."""
    return {
        "product": "CONNTRACK",
        "id": "edge",
        "name": name,
        "state": "present",
        "content": {"udpv6_enabled": False},
        **more,
    }


def path_of(name: str = "x") -> str:
    return f"btfleet/1/CONNTRACK/edge/{name}"


@dataclass(frozen=True)
class Place:
    """A published folder and its keys below one folder."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "published"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def current(self) -> Path:
        return self.root / "current"

    def publisher(
        self, check: bool = False, keep: int = 3, passphrase: str | None = PASSPHRASE
    ) -> Publisher:
        secrets = Passphrases(passphrase, {})
        return Publisher(
            Generations(str(self.root), keep), KeyFolder(str(self.keys), secrets), check
        )

    def converge(
        self,
        *roles: dict[str, Any],
        now: datetime | None = None,
        rotate: tuple[str, ...] = (),
        rotation_id: str | None = None,
        org: int = 1,
        **more: Any,
    ) -> Outcome:
        settings = Settings(org, role_settings(roles), 33, rotate, rotation_id)
        return self.publisher(**more).converge(settings, now or datetime.now(timezone.utc))

    def publish(
        self, *entries: dict[str, Any], exclusive: bool = False, **more: Any
    ) -> ConfigsOutcome:
        return self.publisher(**more).publish(entries, exclusive, datetime.now(timezone.utc))

    def key_files(self, role: str) -> list[Path]:
        return sorted((self.keys / role).glob("*.pem"))

    def first_root(self, name: str) -> bytes:
        return (self.current / name / "1.root.json").read_bytes()

    def tree(self) -> dict[str, Any]:
        """All that lies there, so that two moments can be compared to the byte."""
        found: dict[str, Any] = {}
        for folder, folders, files in os.walk(self.folder):
            for name in [*folders, *files]:
                path = Path(folder, name)
                status = path.lstat()
                content = os.readlink(path) if path.is_symlink() else None
                if path.is_file() and not path.is_symlink():
                    content = path.read_bytes().hex()
                found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
        return found


@dataclass(frozen=True)
class Client:
    """python-tuf's client with its own memory of what it has seen."""

    url: str
    memory: Path
    first_roots: dict[str, bytes]

    def read(self, name: str) -> Updater:
        """Refreshes; raises what python-tuf raises."""
        cache = self.memory / name
        cache.mkdir(parents=True, exist_ok=True)
        first = None if (cache / "root.json").exists() else self.first_roots[name]
        updater = Updater(
            str(cache),
            f"{self.url}/current/{name}/",
            str(self.memory / "files"),
            f"{self.url}/current/targets/",
            bootstrap=first,
        )
        (self.memory / "files").mkdir(exist_ok=True)
        updater.refresh()
        return updater

    def fetch(self, path: str) -> bytes | None:
        """A config's bytes, the same by both repositories; None if it is in neither."""
        found: list[bytes | None] = []
        for name in REPOSITORIES:
            updater = self.read(name)
            target = updater.get_targetinfo(path)
            found.append(Path(updater.download_target(target)).read_bytes() if target else None)
        assert found[0] == found[1]
        return found[0]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server for a folder, on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            return

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def client_of(place: Place, url: str, memory: Path) -> Client:
    """A client that trusts the first roots."""
    return Client(url, memory, {name: place.first_root(name) for name in REPOSITORIES})
