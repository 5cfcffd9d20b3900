# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What python-tuf and its companions give us, and whether they are there.

A control node may lack them. Whoever uses a name from here does so as `libraries.NAME`, after
`problem()` said None, so that importing never fails.
"""

from __future__ import annotations

import os
import traceback
from typing import Iterator
from urllib.parse import unquote, urlsplit

NEEDED = "tuf (6.0 or newer) with securesystemslib[crypto]"

try:
    import tuf
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )
    from securesystemslib.signer import CryptoSigner, Key, Signer
    from tuf.api.exceptions import DownloadHTTPError, RepositoryError
    from tuf.api.metadata import (
        Metadata,
        MetaFile,
        Role,
        Root,
        Signed,
        Snapshot,
        TargetFile,
        Targets,
        Timestamp,
    )
    from tuf.api.serialization import DeserializationError
    from tuf.api.serialization.json import JSONSerializer
    from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

    class FolderFetcher(FetcherInterface):  # type: ignore[misc, unused-ignore]
        """Lets an Updater read a repository that lies in a folder, by file:// addresses."""

        def _fetch(self, url: str) -> Iterator[bytes]:
            path = unquote(urlsplit(url).path)
            if not os.path.isfile(path):
                raise DownloadHTTPError(f"{path} does not exist", 404)
            with open(path, "rb") as stream:
                return iter([stream.read()])

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

__all__ = [
    "IMPORT_ERROR",
    "NEEDED",
    "BestAvailableEncryption",
    "CryptoSigner",
    "DeserializationError",
    "Ed25519PrivateKey",
    "Encoding",
    "FolderFetcher",
    "JSONSerializer",
    "Key",
    "MetaFile",
    "Metadata",
    "PrivateFormat",
    "RepositoryError",
    "Role",
    "Root",
    "Signed",
    "Signer",
    "Snapshot",
    "TargetFile",
    "Targets",
    "Timestamp",
    "UnsupportedAlgorithm",
    "Updater",
    "UpdaterConfig",
    "load_pem_private_key",
    "problem",
]


def problem() -> str | None:
    """Why nothing can be published here, None if all is there."""
    if IMPORT_ERROR is not None:
        return f"{NEEDED} is missing"
    if int(tuf.__version__.split(".")[0]) < 6:
        return f"tuf is {tuf.__version__}, needed: {NEEDED}"
    return None
