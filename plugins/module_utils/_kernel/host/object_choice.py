# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which object a host takes, out of what the control node has."""

from __future__ import annotations

import hashlib
import platform

from ..errors import AssetReadError

# In place of an architecture: an object that the user named, whatever it is for
ANY = "any"


def chosen_digest(
    content: bytes | None,
    offered: dict[str, str] | None,
    pinned: str | None,
    arch: str | None = None,
) -> str:
    """The digest of the object to use: of `content` if it is here, else of what is offered.

    `offered` maps architectures (or ANY) to digests. Raises AssetReadError if nothing is for
    this host (`arch`, as `uname -m` says), or the digest is not `pinned`.
    """
    if content is not None:
        found = hashlib.sha256(content).hexdigest()
    else:
        arch = arch or platform.machine()
        offered = offered or {}
        try:
            found = offered.get(ANY) or offered[arch]
        except KeyError:
            raise AssetReadError(
                f"no object for {arch} (there is one for {', '.join(sorted(offered)) or 'none'}): "
                "run `make object`, or name one with src"
            ) from None
    if pinned is not None and found != pinned:
        raise AssetReadError(
            f"the object has sha256 {found}, needed: {pinned} (give the file that this digest was "
            "made from, or correct the digest)"
        )
    return found
