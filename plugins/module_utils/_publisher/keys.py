# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key folder: encrypted private keys, and what was published last.

    <keys>/<repository>.<role>/<key id>.pem    PKCS #8, encrypted; the name is the key's id
    <keys>/published.json                      last published versions and roots

Every file is for its owner alone. What was published last is the anchor: metadata that does not
follow from it is never signed again, whoever put it into the published folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import Mapping, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import (
    write_atomically,
)

from . import libraries
from .errors import PublisherError
from .plan import REPOSITORIES, ROLES

MIN_PASSPHRASE = 8
VARIABLE = "BTFLEET_PASSPHRASE"

_FILE = re.compile(r"([0-9a-f]{64})\.pem")


class Anchor(NamedTuple):
    """What was published last: versions by repository and role, and the signed roots."""

    versions: dict[str, dict[str, int]]
    roots: dict[str, str]

    @property
    def is_first(self) -> bool:
        """Whether it was written before anything was published."""
        return not any(version for one in self.versions.values() for version in one.values())


class Passphrases(NamedTuple):
    """`common` opens all keys but those of the roles (REPOSITORY.role) named in `special`."""

    common: str | None
    special: Mapping[str, str]

    def of(self, repository: str, role: str) -> bytes:
        """The passphrase for a role's keys; raises PublisherError if there is none."""
        text = self.special.get(f"{repository}.{role}", self.common)
        if text is None:
            raise PublisherError(
                f"no passphrase for the keys of {repository}.{role}, needed: passphrase, "
                f"passphrase_file or the environment variable {VARIABLE}"
            )
        if len(text) < MIN_PASSPHRASE:
            raise PublisherError(
                f"the passphrase for the keys of {repository}.{role} is too short, "
                f"needed: at least {MIN_PASSPHRASE} characters"
            )
        return text.encode()


def passphrases(
    text: str | None, path: str | None, special: Mapping[str, str] | None
) -> Passphrases:
    """The given text, else the first line of a file, else the environment's.

    Raises PublisherError for a role that does not exist, and for a file that cannot be read or
    that others can.
    """
    known = [f"{repository}.{role}" for repository in REPOSITORIES for role in ROLES]
    for name in special or {}:
        if name not in known:
            raise PublisherError(f"passphrases names {name!r}, known are: {', '.join(known)}")
    if text is None and path is not None:
        text = _first_line(path)
    if text is None:
        text = os.environ.get(VARIABLE)
    return Passphrases(text, special or {})


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise PublisherError(
                    f"the passphrase file {path} is open to others than its owner: chmod 600 {path}"
                )
            return stream.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "not text"
        raise PublisherError(
            f"cannot read the passphrase file {path} ({reason}): give a text file with the "
            "passphrase as its first line"
        ) from None


@dataclass(frozen=True)
class KeyFolder:
    """The keys at `path`, opened with `passphrases`."""

    path: str
    passphrases: Passphrases

    def check(self) -> None:
        """Raises PublisherError if others than the owner may look into the folder."""
        for path in (self.path, *self._files()):
            try:
                mode = stat.S_IMODE(os.stat(path).st_mode)
            except FileNotFoundError:
                continue
            if mode & 0o077:
                raise PublisherError(
                    f"{path} is open to others than its owner (mode {mode:04o}): "
                    f"chmod -R go= {self.path}, and rotate the keys if others may have read them"
                )

    def available(self, repository: str) -> list[str]:
        """The ids of a repository's keys that are in the folder."""
        return sorted(
            keyid for role in ROLES for keyid in _ids(self._role_folder(repository, role))
        )

    def create(self, repository: str, role: str) -> libraries.CryptoSigner:
        """Makes a key and keeps it, encrypted."""
        private = libraries.Ed25519PrivateKey.generate()
        signer = libraries.CryptoSigner(private)
        pem = private.private_bytes(
            libraries.Encoding.PEM,
            libraries.PrivateFormat.PKCS8,
            libraries.BestAvailableEncryption(self.passphrases.of(repository, role)),
        )
        folder = self._role_folder(repository, role)
        for needed in (self.path, folder):  # each with its mode, which makedirs gives to one only
            os.makedirs(needed, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"{signer.public_key.keyid}.pem")
        write_atomically(path, pem, mode=0o600)
        return signer

    def open(self, repository: str, role: str, key: libraries.Key) -> libraries.CryptoSigner:
        """The signer for a public key; raises PublisherError if its file does not give it."""
        path = os.path.join(self._role_folder(repository, role), f"{key.keyid}.pem")
        what = f"the key file {path}"
        secret = self.passphrases.of(repository, role)
        try:
            with open(path, "rb") as stream:
                private = libraries.load_pem_private_key(stream.read(), secret)
        except OSError as exc:
            raise PublisherError(
                f"cannot read {what} ({exc.strerror}): put it back from the backup"
            ) from None
        except TypeError:
            raise PublisherError(
                f"{what} is not encrypted: encrypt it (openssl pkcs8 -topk8), and rotate the key "
                "if others may have read it"
            ) from None
        except (ValueError, libraries.UnsupportedAlgorithm):
            raise PublisherError(
                f"{what} does not open: give the passphrase that it was made with, or put the "
                "file back from the backup if it is damaged"
            ) from None
        try:
            return libraries.CryptoSigner(private, key)  # type: ignore[arg-type]
        except ValueError:
            raise PublisherError(
                f"{what} is not the private key of {key.keyid[:12]}: put it back from the backup"
            ) from None

    def check_passphrases(self, repository: str) -> None:
        """Raises PublisherError if keys could not be made for want of a passphrase."""
        for role in ROLES:
            self.passphrases.of(repository, role)

    def keep_only(self, repository: str, keyids: Mapping[str, list[str]]) -> None:
        """Removes keys that are no role's any more: retired ones, and leftovers of a crash."""
        for role in ROLES:
            folder = self._role_folder(repository, role)
            for keyid in _ids(folder):
                if keyid not in keyids[role]:
                    os.unlink(os.path.join(folder, f"{keyid}.pem"))

    def read_anchor(self) -> Anchor | None:
        """What was published last, None if nothing was; raises PublisherError if unreadable."""
        try:
            with open(self._anchor_path, encoding="utf-8") as stream:
                data = json.load(stream)
            return Anchor(data["versions"], data["roots"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise PublisherError(
                f"{self._anchor_path} is damaged ({type(exc).__name__}): "
                "put it back from the backup"
            ) from None

    def write_anchor(self, anchor: Anchor) -> None:
        """Puts what was published in place of what was before."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        text = json.dumps(anchor._asdict(), indent=2, sort_keys=True) + "\n"
        write_atomically(self._anchor_path, text.encode(), mode=0o600)

    def remove(self) -> None:
        """Removes all keys and the anchor, and the folder if nothing else is in it."""
        for repository in REPOSITORIES:
            for role in ROLES:
                shutil.rmtree(self._role_folder(repository, role), ignore_errors=True)
        if os.path.exists(self._anchor_path):
            os.unlink(self._anchor_path)
        if os.path.isdir(self.path) and not os.listdir(self.path):
            os.rmdir(self.path)

    @property
    def _anchor_path(self) -> str:
        return os.path.join(self.path, "published.json")

    def _role_folder(self, repository: str, role: str) -> str:
        return os.path.join(self.path, f"{repository}.{role}")

    def _files(self) -> list[str]:
        found = [self._anchor_path]
        for repository in REPOSITORIES:
            for role in ROLES:
                folder = self._role_folder(repository, role)
                found += [folder, *(os.path.join(folder, f"{keyid}.pem") for keyid in _ids(folder))]
        return found


def _ids(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    return [match.group(1) for match in map(_FILE.fullmatch, names) if match]
