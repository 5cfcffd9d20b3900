# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in force when configs are laid over the base, and who decided each value."""

from __future__ import annotations

from typing import Collection, Mapping, NamedTuple

BASE = "base"


class Effective(NamedTuple):
    """`owners` has `base` or a path for each key; `refused` has why, by path."""

    values: dict[str, object]
    owners: dict[str, str]
    refused: dict[str, str]


def merge(
    product: str,
    base: Mapping[str, object],
    configs: Mapping[str, Mapping[str, object]],
    allowed: Collection[str],
) -> Effective:
    """Lays the (checked) settings of configs, by path, over the base of one product.

    `allowed` are the keys that remote config may override, as PRODUCT.key. A config that sets
    another one is refused as a whole. Where two set one key, the greater path wins.
    """
    values, owners, refused = dict(base), dict.fromkeys(base, BASE), {}
    for path in sorted(configs):
        settings = configs[path]
        foreign = sorted(key for key in settings if f"{product}.{key}" not in allowed)
        if foreign:
            refused[path] = (
                f"it sets {', '.join(foreign)}, which remote config may not override on this host: "
                "take it out, or allow it with btfleet_remote_config_keys"
            )
            continue
        values.update(settings)
        owners.update(dict.fromkeys(settings, path))
    return Effective(values, owners, refused)
