# SPDX-License-Identifier: GPL-3.0-or-later
"""What a publisher, or whoever stands before it, gives to the config service."""

from __future__ import annotations

from btfleet._config.paths import parse
from btfleet.service.errors import REASONS, Refused
from btfleet.service.fetch import Limits
from btfleet.service.generation import NOTHING, Generation, Stored
from btfleet.service.update import update

from tests.fuzz import published
from tests.fuzz.signed import sign, signed_part
from tests.fuzz.target import check_line
from tests.unit.service.simulator import ROLES

_LIMITS = Limits(total_bytes=1 << 20, seconds=10, request_seconds=10, idle_seconds=10)


class _Repositories:
    """Metadata name each other by version only, so that each can be replaced alone."""

    def __init__(self) -> None:
        self._folder = published.memory()
        self.simulator = published.simulator(self._folder / "repository")
        self._anchors = {name: each.roots[1] for name, each in self.simulator.repositories.items()}
        for repository in self.simulator.repositories.values():
            listed = repository.snapshot.signed.meta["targets.json"]
            listed.length = listed.hashes = None
            named = repository.timestamp.signed.snapshot_meta
            named.length = named.hashes = None
            for role in ("timestamp", "snapshot"):
                raw = repository.sign(getattr(repository, role), role)
                (self.simulator.current / repository.name / _file(role)).write_bytes(raw)
        self._known = NOTHING
        honest = self._update(NOTHING)
        assert honest
        self._known = Stored(honest.chains, honest.files)

    def raw(self, repository: str, role: str) -> bytes:
        """The file that an honest publisher wrote."""
        name = "2.root.json" if (repository, role) == ("director", "root") else _file(role)
        return (self.simulator.current / repository / name).read_bytes()

    def take(self, repository: str, role: str, raw: bytes) -> None:
        """One file in the place of the honest one, for a new service and for one that knows it."""
        name = _file(role)
        if role == "root":
            name = "3.root.json" if repository == "director" else "2.root.json"
        file = self.simulator.current / repository / name
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(raw)
        try:
            for stored in (NOTHING, self._known):
                self._check(stored)
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_bytes(before)

    def _check(self, stored: Stored) -> None:
        generation, reason = None, ""
        try:
            generation = self._update(stored)
        except Refused as exc:
            reason = exc.reason
            check_line(exc)
        assert not reason or reason in REASONS
        assert not (self._folder / "staging").exists()
        if generation is not None:
            for target in generation.targets:
                assert parse(target.path).org == 1
                assert generation.files[target.sha256] in self.simulator.contents.values()

    def _update(self, stored: Stored) -> Generation | None:
        return update(
            str(self.simulator.folder),
            None,
            self._anchors,
            stored,
            self._folder / "staging",
            1,
            _LIMITS,
        )

    def _split(self, data: bytes) -> tuple[str, str, bytes]:
        """Repository, role and what is behind them; without these words, the director's targets."""
        words = data.split(b" ", 2)
        names = [word.decode("ascii", "replace") for word in words[:2]]
        if len(words) == 3 and names[0] in self.simulator.repositories and names[1] in ROLES:
            return names[0], names[1], words[2]
        return "director", "targets", data


def _file(role: str) -> str:
    return "timestamp.json" if role == "timestamp" else f"1.{role}.json"


class MetadataBytes(_Repositories):
    """`REPOSITORY ROLE BYTES`: the bytes of one metadata file, as they come from the network."""

    def seeds(self) -> list[bytes]:
        return [
            f"{repository} {role} ".encode() + self.raw(repository, role)
            for repository in self.simulator.repositories
            for role in ROLES
        ]

    def run(self, data: bytes) -> None:
        self.take(*self._split(data))


class SignedMetadata(_Repositories):
    """`REPOSITORY ROLE {...}`: the signed part of one metadata file, signed by the role's keys."""

    def seeds(self) -> list[bytes]:
        return [
            f"{repository} {role} ".encode() + signed_part(self.raw(repository, role))
            for repository in self.simulator.repositories
            for role in ROLES
        ]

    def run(self, data: bytes) -> None:
        repository, role, text = self._split(data)
        self.take(
            repository, role, sign(text, self.simulator.repositories[repository].signers[role])
        )
