# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a bearer token belongs to. Only SHA-256 hashes of tokens are known here."""

from __future__ import annotations

import hashlib
import re
import threading
from typing import Callable, Mapping, NamedTuple

from btfleet.service.errors import SettingsError
from btfleet.service.file_stamp import stamp
from btfleet.service.settings import read_json

HOST, OPERATOR = "host", "operator"

_SECTIONS = {"hosts": HOST, "operators": OPERATOR}
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_TOKEN = 1024


class Identity(NamedTuple):
    """Who calls: HOST or OPERATOR, and the name."""

    kind: str
    name: str


def parse(data: object, name: str) -> dict[str, Identity]:
    """Identities by the tokens' SHA-256 (hex); raises SettingsError for the first wrong entry."""
    if not isinstance(data, Mapping):
        raise SettingsError(f"{name} is a {type(data).__name__}, needed: an object")
    for key in data:
        if key not in _SECTIONS:
            raise SettingsError(
                f"{name}: unknown key {ascii(key)[:100]}, known are: {', '.join(_SECTIONS)}"
            )
    found: dict[str, Identity] = {}
    for section, kind in _SECTIONS.items():
        names = data.get(section, {})
        if not isinstance(names, Mapping):
            raise SettingsError(f"{name}: {section} is no object, needed: names and their hashes")
        for owner, hashes in names.items():
            where = f"{name}: {section}.{ascii(owner[:100])[1:-1]}"
            if not owner or not isinstance(hashes, list):
                raise SettingsError(f"{where} is no list, needed: a list of SHA-256 hashes in hex")
            for value in hashes:
                if not isinstance(value, str) or not _SHA256.fullmatch(value):
                    # Not shown: somebody may have put the token itself there
                    raise SettingsError(
                        f"{where} holds something that is no SHA-256 hash, "
                        "needed: 64 lower-case hex digits each (sha256sum of the token)"
                    )
                identity = found.setdefault(value, Identity(kind, owner))
                if identity != (kind, owner):
                    other = ascii(identity.name[:100])[1:-1]
                    raise SettingsError(
                        f"{where} has a token of {identity.kind} {other} too, "
                        "needed: a token of its own"
                    )
    return found


def token_of(header: object) -> str:
    """The token in an `authorization` header; empty if it holds none."""
    if not isinstance(header, str) or header[:7].lower() != "bearer ":
        return ""
    token = header[7:].strip()
    return token if len(token) <= MAX_TOKEN else ""


class TokenFile:
    """The tokens file. A look-up takes no lock; a file that got wrong leaves the old tokens."""

    def __init__(self, path: str, report: Callable[[str | None], None]) -> None:
        """Reads it. `report` is told of each later reading: None, or what is wrong with it.

        Raises SettingsError.
        """
        self._path, self._report, self._lock = path, report, threading.Lock()
        self._stamp = stamp(path)
        self._read()

    def _read(self) -> None:
        known = parse(read_json(self._path), self._path)
        names = {identity.name for identity in known.values() if identity.kind == HOST}
        self._known, self.host_names = known, tuple(sorted(names))

    def __len__(self) -> int:
        return len(self._known)

    def identify(self, token: str) -> Identity | None:
        """Whose token it is. The time that it takes tells of the token's hash alone."""
        return self._known.get(hashlib.sha256(token.encode()).hexdigest())

    def reload_if_changed(self) -> None:
        """Reads the file again if it is another one than the last time."""
        with self._lock:
            now = stamp(self._path)
            if now == self._stamp:
                return
            self._stamp = now
            try:
                self._read()
            except SettingsError as exc:
                self._report(str(exc))
                return
            self._report(None)
