# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of configs: btfleet/<org>/<PRODUCT>/<id>/<name>."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import ConfigError

FORM = "btfleet/<org>/<PRODUCT>/<id>/<name>"
# A file's name on the disk is <sha256>.<name>, which has to stay below 255 bytes
MAX_SEGMENT = 128
MAX_ORG = 2**63 - 1

# One spelling a number, so that no two paths are one config
_ORG = re.compile(r"0|[1-9][0-9]{0,18}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class ConfigPath(NamedTuple):
    """A config's path in its parts; `str()` gives the path."""

    org: int
    product: str
    id: str
    name: str

    def __str__(self) -> str:
        return f"btfleet/{self.org}/{self.product}/{self.id}/{self.name}"


def parse(text: object) -> ConfigPath:
    """The parts of a path; raises ConfigError for anything that is not exactly of the form."""
    parts = text.split("/") if isinstance(text, str) else []
    if len(parts) != 5 or parts[0] != "btfleet":
        raise ConfigError(f"the path is {_shown(text)}, needed: {FORM}")
    if not _ORG.fullmatch(parts[1]) or int(parts[1]) > MAX_ORG:
        raise ConfigError(
            f"the org in the path {_shown(text)} is no number from 0 to {MAX_ORG} "
            f"(without leading zeros), needed: {FORM}"
        )
    for what, value in zip(("product", "id", "name"), parts[2:]):
        check_segment(what, value)
    return ConfigPath(int(parts[1]), *parts[2:])


def check_segment(what: str, value: object) -> str:
    """The value, if it can be one segment of a path; raises ConfigError naming `what` if not."""
    if (
        not isinstance(value, str)
        or not _SEGMENT.fullmatch(value)
        or value in (".", "..")
        or len(value) > MAX_SEGMENT
    ):
        raise ConfigError(
            f"{what} is {_shown(value)}, needed: 1 to {MAX_SEGMENT} of A-Z a-z 0-9 . _ - "
            "(and not . or ..)"
        )
    return value


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 200 else text[:200] + "..."
