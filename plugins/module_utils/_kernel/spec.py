# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The spec: what a tracker should be. Pure data, its checks and its fingerprint."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Mapping

from .errors import InvalidSpec

RUNTIME, NETLINK = "runtime", "netlink"
# Taken where nobody has said which; the rest has to be allowed by name
DEFAULT_TIERS = ("core/fentry", "core/kprobe", "core/fexit", "core/kretprobe")
BY_NAME = (RUNTIME, NETLINK)
# Best first. Further tiers take their place here.
TIERS = (*DEFAULT_TIERS, *BY_NAME)

MIN_ENTRIES = 1024
MAX_ENTRIES = 16777216

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Spec:
    """Settings of a tracker.

    `object_sha256` pins the object file. `max_entries` and `closed_entries` size the maps; a
    flow takes two entries, one a direction. `tiers` are the allowed ones. A kernel with the
    symbol tasks_rcu_exit_srcu gets core/fentry and core/fexit only if `allow_fentry_deadlock`
    says so. `btf_path` names a BTF file on the host to use in place of the kernel's own.
    """

    object_sha256: str
    tcpv6_enabled: bool = True
    udpv6_enabled: bool = True
    max_entries: int = 131072
    closed_entries: int = 65536
    tiers: tuple[str, ...] = DEFAULT_TIERS
    allow_fentry_deadlock: bool = False
    btf_path: str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidSpec for the first setting that is not as it should be."""
        if not isinstance(self.object_sha256, str) or not _SHA256.fullmatch(self.object_sha256):
            raise InvalidSpec(
                f"object_sha256 is {self.object_sha256!r}, needed: 64 lower-case hex digits"
            )
        for name in ("tcpv6_enabled", "udpv6_enabled", "allow_fentry_deadlock"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSpec(f"{name} is {getattr(self, name)!r}, needed: true or false")
        for name in ("max_entries", "closed_entries"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidSpec(f"{name} is {value!r}, needed: a whole number")
            if not MIN_ENTRIES <= value <= MAX_ENTRIES:
                raise InvalidSpec(
                    f"{name} is {value}, needed: a number from {MIN_ENTRIES} to {MAX_ENTRIES}"
                )
        if not self.tiers:
            raise InvalidSpec(f"tiers is empty, needed: one or more of {', '.join(TIERS)}")
        for tier in self.tiers:
            if tier not in TIERS:
                raise InvalidSpec(f"tiers holds {tier!r}, needed: any of {', '.join(TIERS)}")
        if self.btf_path is not None and (
            not isinstance(self.btf_path, str) or not self.btf_path.startswith("/")
        ):
            raise InvalidSpec(f"btf_path is {self.btf_path!r}, needed: an absolute path")

    @classmethod
    def from_dict(cls, data: object) -> Spec:
        """A spec from parsed JSON; raises InvalidSpec for unknown, missing and wrong settings."""
        if not isinstance(data, Mapping):
            raise InvalidSpec(f"the spec is a {type(data).__name__}, needed: an object of settings")
        known = {field.name for field in fields(cls)}
        unknown = sorted(str(key) for key in data if key not in known)
        if unknown:
            raise InvalidSpec(
                f"unknown setting {unknown[0]!r}, known are: {', '.join(sorted(known))}"
            )
        if "object_sha256" not in data:
            raise InvalidSpec("object_sha256 is missing, needed: 64 lower-case hex digits")
        values = dict(data)
        if "tiers" in values:
            if not isinstance(values["tiers"], (list, tuple)):
                raise InvalidSpec(f"tiers is {values['tiers']!r}, needed: a list of tiers")
            # Their order is fixed, best first, so that one wish has one fingerprint
            wanted = values["tiers"]
            extra = [tier for tier in wanted if tier not in TIERS]
            values["tiers"] = tuple([tier for tier in TIERS if tier in wanted] + extra)
        return cls(**values)

    @classmethod
    def from_json(cls, text: str, name: str) -> Spec:
        """A spec from a file's text; `name` is for messages."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise InvalidSpec(f"{name} is not JSON ({exc}): write it again") from None
        return cls.from_dict(data)

    def to_dict(self) -> dict[str, object]:
        """Plain data, as in JSON."""
        # not by asdict, which copies every value: this runs for each of ten thousand configs
        data = {each.name: getattr(self, each.name) for each in fields(self)}
        data["tiers"] = list(self.tiers)
        return data

    def to_json(self) -> str:
        """The text of a spec file."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the canonical JSON of all settings."""
        import hashlib  # noqa: PLC0415 OpenSSL is slow to start

        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
