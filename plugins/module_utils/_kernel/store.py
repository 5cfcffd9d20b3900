# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies on a host's disk: the spec file and the object files. Every write is atomic."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .errors import AssetReadError, InvalidSpec
from .spec import Spec

# Some 200 times what an object of ours has
_MAX_OBJECT = 16 << 20
_UNFINISHED = ".btfleet-"
_OBJECT = re.compile(r"[0-9a-f]{64}\.bpf\.o")


def write_atomically(path: str, content: bytes, mode: int = 0o644, gid: int | None = None) -> None:
    """Writes a whole file or, whatever happens, none of it; makes the folder if needed.

    With `gid` it belongs to root and that group from its first moment under its name.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    import tempfile  # noqa: PLC0415 what reads has no time for it

    fd, temporary = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            if gid is not None:
                os.fchown(stream.fileno(), 0, gid)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@dataclass(frozen=True)
class Store:
    """The files of one tracker. `wanted_path` is the poller agent's, and only ever read."""

    spec_path: str = "/etc/btfleet/spec.json"
    state_folder: str = "/var/lib/btfleet"
    wanted_path: str = "/var/lib/btfleet-agent/wanted.json"
    applied_path: str = "/run/btfleet/applied.json"

    @property
    def remote_path(self) -> str:
        """Where it is said what remote config may override."""
        return os.path.join(os.path.dirname(self.spec_path), "remote.json")

    @property
    def objects_folder(self) -> str:
        """Where object files lie, each under its digest."""
        return os.path.join(self.state_folder, "objects")

    @property
    def results_path(self) -> str:
        """Where load results are counted."""
        return os.path.join(self.state_folder, "load_results.json")

    @property
    def btf_archive_path(self) -> str:
        """Where the archive of BTF lies, if the host was given one (see `btf_archive`)."""
        return os.path.join(self.state_folder, "btf.tar.gz")

    @property
    def header_types_path(self) -> str:
        """Where the numbers are kept that the kernel's headers gave (see `header_types`)."""
        return os.path.join(self.state_folder, "header_types.json")

    @property
    def points_path(self) -> str:
        """Where a rollout's restore points are."""
        return os.path.join(self.state_folder, "restore_points.json")

    @property
    def rollout_path(self) -> str:
        """Where it is said how the last rollout ended."""
        return os.path.join(self.state_folder, "rollout.json")

    def object_path(self, sha256: str) -> str:
        """Where the object with this digest lies, or would lie."""
        return os.path.join(self.objects_folder, f"{sha256}.bpf.o")

    def read_spec(self) -> Spec | None:
        """The spec on disk, None if there is no file; raises InvalidSpec if it is no spec."""
        try:
            with open(self.spec_path, encoding="utf-8") as stream:
                return Spec.from_json(stream.read(), self.spec_path)
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise InvalidSpec(f"{self.spec_path} is not JSON (nor text): write it again") from None

    def write_spec(self, spec: Spec) -> None:
        """Puts a spec in place of the one on disk."""
        write_atomically(self.spec_path, spec.to_json().encode())

    def has_object(self, sha256: str) -> bool:
        """Whether the object is there and undamaged."""
        try:
            self.read_object(sha256)
        except AssetReadError:
            return False
        return True

    def read_object(self, sha256: str) -> bytes:
        """The object with this digest; raises AssetReadError if missing or damaged."""
        return read_object_file(self.object_path(sha256), sha256)

    def write_object(self, content: bytes) -> str:
        """Keeps an object file; returns its digest."""
        import hashlib  # noqa: PLC0415 OpenSSL is slow to start

        sha256 = hashlib.sha256(content).hexdigest()
        if not self.has_object(sha256):
            write_atomically(self.object_path(sha256), content)
        return sha256

    def objects(self) -> list[str]:
        """The digests of all kept objects."""
        try:
            names = os.listdir(self.objects_folder)
        except FileNotFoundError:
            return []
        return sorted(name[:64] for name in names if _OBJECT.fullmatch(name))

    def prune(self, keep: set[str]) -> None:
        """Removes the objects that are not in `keep`."""
        for sha256 in self.objects():
            if sha256 not in keep:
                os.unlink(self.object_path(sha256))

    def exists(self) -> bool:
        """Whether there is anything that `remove` would take away."""
        if self.objects() or any(os.path.lexists(path) for path in self._files()):
            return True
        return any(os.path.isdir(path) and not os.listdir(path) for path in self._folders())

    def remove(self) -> None:
        """Removes all files, and the folders if nothing else is in them."""
        self.prune(set())
        for path in self._files():
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
        for folder in self._folders():
            try:
                os.rmdir(folder)
            except OSError:  # not there, or somebody else's files in it
                continue

    def _folders(self) -> tuple[str, ...]:
        return (self.objects_folder, self.state_folder, os.path.dirname(self.spec_path))

    def unfinished(self) -> list[str]:
        """The files that a killed writer left."""
        return [
            os.path.join(folder, name)
            for folder in self._folders()
            if os.path.isdir(folder)
            for name in os.listdir(folder)
            if name.startswith(_UNFINISHED)
        ]

    def _files(self) -> list[str]:
        """The files but for the objects; what a killed writer left is one of them."""
        known = [self.spec_path, self.remote_path, self.results_path, self.btf_archive_path]
        known += [self.header_types_path, self.points_path, self.rollout_path]
        return [*known, *self.unfinished()]


def read_object_file(path: str, sha256: str | None = None) -> bytes:
    """An object file's bytes; raises AssetReadError if it is not to be had or another one."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(_MAX_OBJECT + 1)
    except OSError as exc:
        raise AssetReadError(
            f"cannot read the object {path} ({exc.strerror}): install it again"
        ) from None
    if len(content) > _MAX_OBJECT:
        raise AssetReadError(
            f"the object {path} has more than {_MAX_OBJECT >> 20} MiB: it is no object of ours"
        )
    import hashlib  # noqa: PLC0415 OpenSSL is slow to start

    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise AssetReadError(
            f"the object {path} has sha256 {found}, needed: {sha256} (give the file that this "
            "digest was made from, or correct the digest)"
        )
    return content
