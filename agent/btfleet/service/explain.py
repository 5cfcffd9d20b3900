# SPDX-License-Identifier: GPL-3.0-or-later
"""From what python-tuf raised to the attack's name and one line of text. Pure."""

from __future__ import annotations

import json
import re

from tuf.api import exceptions

from btfleet.service.errors import Refused

_ADVICE = {
    "rollback": "the repository, or who stands before it, offers older metadata than was seen: "
    "publish anew, or reset the service if the repository was set up again",
    "freeze": "renew it (playbook btfleet.conntrack.publish), or see who keeps newer metadata back",
    "mix_and_match": "files of different states stand side by side: publish anew",
    "endless_data": "the file is longer than it may be: publish anew, or see who stands between",
    "slow_retrieval": "look at the network and the web server, or see who stands between",
    "unsigned": "it is not signed as the root demands: publish anew with the right keys",
    "root_gap": "the chain of roots has to be whole: publish anew",
    "wrong_hash": "the file is another one than the one that was signed: publish anew",
    "malformed": "publish anew",
    "not_found": "publish anew, or correct `repository`",
    "unreachable": "look at the network, the web server and its certificate",
}

_VERSIONED = re.compile(r"([0-9]+)\.([a-z]+)\.json")


def refused(reason: str, repository: str, what: str, found: str) -> Refused:
    """The error for one repository's file."""
    return Refused(reason, f"{repository}'s {what}: {found}: {_ADVICE[reason]}")


def explain(repository: str, asked: str, got: bytes, exc: Exception) -> Refused:
    """What python-tuf's `exc` means.

    `asked` is the file that was fetched last (below the repository's `current`), `got` the last
    metadata that came.
    """
    name = asked.rpartition("/")[2] if asked.startswith(f"{repository}/") else asked
    text = " ".join(str(exc).split()) or type(exc).__name__
    return refused(_reason(name, got, exc), repository, name or "metadata", text)


def _reason(name: str, got: bytes, exc: Exception) -> str:
    if isinstance(exc, exceptions.SlowRetrievalError):
        return "slow_retrieval"
    if isinstance(exc, exceptions.DownloadLengthMismatchError):
        return "endless_data"
    if isinstance(exc, exceptions.DownloadHTTPError):
        return "not_found" if exc.status_code == 404 else "unreachable"
    if isinstance(exc, exceptions.DownloadError):
        return "unreachable"
    if isinstance(exc, exceptions.ExpiredMetadataError):
        return "freeze"
    if isinstance(exc, exceptions.UnsignedMetadataError):
        return "unsigned"
    if isinstance(exc, exceptions.LengthOrHashMismatchError):
        # Metadata is named by other metadata, a target by a version of the targets
        return "mix_and_match" if name.endswith(".json") and "/" not in name else "wrong_hash"
    if isinstance(exc, exceptions.BadVersionNumberError):
        return _bad_version(name, got)
    if "missing info" in str(exc):
        return "rollback"  # a role was taken out of the snapshot
    return "malformed"


def _bad_version(name: str, got: bytes) -> str:
    """A version that is lower than one seen is a rollback, one that others do not name is mixed."""
    versioned = _VERSIONED.fullmatch(name)
    if versioned is None:
        return "rollback"
    asked, said = int(versioned[1]), _version(got)
    if versioned[2] == "root":
        return "rollback" if said < asked else "root_gap"
    return "rollback" if said == asked else "mix_and_match"


def _version(raw: bytes) -> int:
    try:
        version = json.loads(raw)["signed"]["version"]
    except (ValueError, LookupError, TypeError):
        return 0
    return version if isinstance(version, int) else 0
