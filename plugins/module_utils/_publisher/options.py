# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that both publishing modules have."""

from __future__ import annotations

from typing import Any, Mapping

from .errors import PublisherError
from .generations import Generations
from .keys import KeyFolder, passphrases
from .publisher import Publisher

COMMON: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "keys": {"type": "path", "required": True, "no_log": False},
    "passphrase": {"type": "str", "no_log": True},
    "passphrase_file": {"type": "path", "no_log": False},
    "passphrases": {"type": "dict", "no_log": True},
    "keep_generations": {"type": "int", "default": 5},
}


def publisher(params: Mapping[str, Any], check: bool) -> Publisher:
    """The publisher for a module's parameters; raises PublisherError."""
    keep = params["keep_generations"]
    if not 1 <= keep <= 1000:
        raise PublisherError(f"keep_generations is {keep}, needed: a number from 1 to 1000")
    secrets = passphrases(params["passphrase"], params["passphrase_file"], params["passphrases"])
    return Publisher(Generations(params["path"], keep), KeyFolder(params["keys"], secrets), check)
