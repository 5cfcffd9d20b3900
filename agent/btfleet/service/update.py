# SPDX-License-Identifier: GPL-3.0-or-later
"""The Uptane client: from a repository and what is trusted so far to a verified generation.

Everything happens in a staging folder and in memory; nothing that is trusted or served changes
before the caller commits the result. python-tuf's Updater verifies each repository and every file,
`crosscheck` the two against each other.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import shutil
from pathlib import Path
from typing import IO, Iterator, Mapping

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import Updater, UpdaterConfig

from btfleet._config import strict_json
from btfleet._config.errors import ConfigError
from btfleet.service.chain import (
    DIRECTOR,
    REPOSITORIES,
    ROLES,
    Chain,
    check_keys,
    check_version,
)
from btfleet.service.crosscheck import Target
from btfleet.service.errors import Refused
from btfleet.service.explain import explain, refused
from btfleet.service.fetch import MAX_NEW_ROOTS, Budget, Fetcher, Limits, Source, open_source
from btfleet.service.generation import Generation, Stored, build

# Ten thousand configs with predicates take about 4 MB of targets
CONFIG = UpdaterConfig(
    # one more than is taken, so that the fetcher sees it asked for
    max_root_rotations=MAX_NEW_ROOTS + 1,
    targets_max_length=32 << 20,
    snapshot_max_length=1 << 20,
    app_user_agent="btfleet",
)


def update(
    repository: str,
    repository_ca: str | None,
    anchors: Mapping[str, bytes],
    stored: Stored,
    staging: Path,
    org: int,
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    rebuild: bool = False,
) -> Generation | None:
    """A new generation; None where nothing has changed, unless it is to be rebuilt.

    Raises Refused, or OSError for the disk.

    `anchors` are the first roots by repository, `stored` is what is trusted so far. `staging` is a
    folder that is emptied before and after.
    """
    budget = Budget(limits)
    source = open_source(repository, repository_ca)
    try:
        return _update(source, budget, anchors, stored, staging, org, rebuild)
    except Refused as exc:
        # A web server shows one generation for one file and the next one for another while they
        # are being switched: such a mixture is gone at the second look
        if exc.reason != "mix_and_match" or not repository.startswith("https://"):
            raise
        return _update(source, budget, anchors, stored, staging, org, rebuild)
    finally:
        source.close()
        shutil.rmtree(staging, ignore_errors=True)


def is_unchanged(
    repository: str,
    repository_ca: str | None,
    chains: Mapping[str, Chain],
    limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
) -> bool:
    """Whether both repositories still are at these verified chains; raises Refused.

    The caller has seen to it that nothing in them has expired.
    The same timestamp, to the byte, names the same snapshot, and that the same targets. So where
    no new root has come either, there is nothing to verify again.
    """
    budget = Budget(limits)
    source = open_source(repository, repository_ca)
    try:
        return all(_is_at(source, budget, name, chain) for name, chain in chains.items())
    finally:
        source.close()


def _is_at(source: Source, budget: Budget, name: str, chain: Chain) -> bool:
    fetcher = Fetcher(source, budget, name, chain.root_version)
    base = f"{source.base}{name}/"
    try:
        raw = fetcher.download_bytes(f"{base}timestamp.json", CONFIG.timestamp_max_length)
        return raw == chain.metadata["timestamp"] and not any(
            fetcher.exists(f"{base}{version}.root.json", CONFIG.root_max_length)
            for version in (chain.root_version + 1, chain.root_version + 2)
        )
    except (DownloadError, RepositoryError) as exc:
        raise explain(name, fetcher.asked, fetcher.got, exc) from None


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """What a refresh makes lives long: to walk through it again and again takes a quarter of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def trusts(chain: Chain | None, anchor: bytes) -> bool:
    """Whether a stored chain is one of this first root: else the operator trusts another one."""
    return chain is not None and anchor in chain.roots.values()


def check_anchor(repository: str, raw: bytes) -> int:
    """The version of a first root; raises Refused if it is none."""
    try:
        strict_json.loads(raw, f"the first root of the {repository} repository")
        root: Metadata[Root] = Metadata.from_bytes(raw)
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        check_version(repository, root.signed)
        check_keys(repository, root.signed)
    except ConfigError as exc:
        raise Refused("malformed", str(exc)) from None
    except (RepositoryError, AttributeError, ValueError) as exc:
        text = " ".join(str(exc).split())
        raise Refused(
            "malformed",
            f"the first root of the {repository} repository is no root that signs itself ({text}): "
            "copy the publisher's",
        ) from None
    return root.signed.version


@_no_collections()
def _update(
    source: Source,
    budget: Budget,
    anchors: Mapping[str, bytes],
    stored: Stored,
    staging: Path,
    org: int,
    rebuild: bool,
) -> Generation | None:
    shutil.rmtree(staging, ignore_errors=True)
    clients = {}
    for name in REPOSITORIES:
        chain = stored.chains.get(name)
        start = chain if chain and trusts(chain, anchors[name]) else None
        clients[name] = _Client(name, source, budget, anchors[name], start, staging / name)
    chains = {name: client.refresh() for name, client in clients.items()}
    if chains == stored.chains and not rebuild:
        return None
    director = clients[DIRECTOR]
    return build(chains, org, lambda targets: director.files(targets, stored.files))


class _Client:
    """One repository: an Updater in a folder that is filled with what is trusted so far."""

    def __init__(
        self,
        name: str,
        source: Source,
        budget: Budget,
        anchor: bytes,
        start: Chain | None,
        folder: Path,
    ) -> None:
        self._name, self._folder, self._base = name, folder, f"{source.base}{name}/"
        if start is None:
            start = Chain({check_anchor(name, anchor): anchor}, {})
        self._start = start
        folder.mkdir(parents=True)
        for role, raw in start.metadata.items():
            (folder / f"{role}.json").write_bytes(raw)
        self._fetcher = Fetcher(source, budget, name, start.root_version)
        try:
            self._updater = Updater(
                str(folder),
                self._base,
                target_base_url=f"{source.base}targets/",
                fetcher=self._fetcher,
                config=CONFIG,
                bootstrap=start.roots[start.root_version],
            )
        except RepositoryError as exc:
            raise self._explain(exc) from None

    def refresh(self) -> Chain:
        """The verified chain of the repository as it is now."""
        try:
            self._updater.refresh()
            self._check_gap()
        except (DownloadError, RepositoryError) as exc:
            if isinstance(exc, RepositoryError) and not self._fetcher.asked.endswith(".root.json"):
                self._check_gap()  # it explains a missing signature better
            raise self._explain(exc) from None
        metadata = {role: (self._folder / f"{role}.json").read_bytes() for role in ROLES}
        return Chain(self._roots(), metadata)

    def files(self, targets: list[Target], known: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files of the targets by SHA-256; those that are not known are fetched."""
        found = {}
        # Each goes through a file in memory: thousands of small ones on the disk take their time
        with open(os.memfd_create("target"), "rb") as memory:
            for target in targets:
                if target.sha256 in found:
                    continue
                raw = known.get(target.sha256)
                if raw is None or hashlib.sha256(raw).hexdigest() != target.sha256:
                    raw = self._fetch(target, memory)
                found[target.sha256] = raw
        return found

    def _fetch(self, target: Target, memory: IO[bytes]) -> bytes:
        try:
            self._updater.download_target(target.file, f"/proc/self/fd/{memory.fileno()}")
        except (DownloadError, RepositoryError) as exc:
            raise self._explain(exc) from None
        memory.seek(0)
        return memory.read()

    def _roots(self) -> dict[int, bytes]:
        roots = dict(self._start.roots)
        for version in range(self._start.root_version, self._root_version() + 1):
            roots[version] = (self._folder / "root_history" / f"{version}.root.json").read_bytes()
            if version > self._start.root_version:
                root: Root = Metadata[Root].from_bytes(roots[version]).signed
                check_version(self._name, root)
                check_keys(self._name, root)
        return roots

    def _root_version(self) -> int:
        names = (self._folder / "root_history").glob("*.root.json")
        return max(int(path.name.split(".", 1)[0]) for path in names)

    def _check_gap(self) -> None:
        """The Updater takes a missing root for the end of the chain; what lies behind tells."""
        version = self._root_version()
        if version < self._start.root_version + MAX_NEW_ROOTS and self._fetcher.exists(
            f"{self._base}{version + 2}.root.json", CONFIG.root_max_length
        ):
            raise refused(
                "root_gap",
                self._name,
                f"{version + 1}.root.json",
                f"missing or refused, and {version + 2}.root.json is there",
            )

    def _explain(self, exc: Exception) -> Refused:
        return explain(self._name, self._fetcher.asked, self._fetcher.got, exc)
