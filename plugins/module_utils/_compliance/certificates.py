# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long certificates are good: just that much of X.509 (RFC 5280) as stands before it."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
import time
from typing import NamedTuple

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class Validity(NamedTuple):
    """Unix times."""

    begins: int
    ends: int


class NotACertificate(ValueError):
    """The bytes are no certificate."""


def read_pem(raw: bytes) -> tuple[Validity, ...]:
    """Of each certificate in a PEM file; raises NotACertificate if there is none, or a bad one."""
    found = []
    for match in _PEM.finditer(raw):
        try:
            found.append(of_der(base64.b64decode(match.group(1))))
        except (binascii.Error, IndexError, ValueError) as exc:
            raise NotACertificate(f"a certificate in it is damaged ({exc})") from None
    if not found:
        raise NotACertificate("there is no certificate in it")
    return tuple(found)


def of_der(raw: bytes) -> Validity:
    """From Certificate / TBSCertificate / Validity; raises ValueError or IndexError."""
    body = _part(_part(raw, _SEQUENCE)[0], _SEQUENCE)[0]
    if body[0] == _VERSION:
        body = _part(body, _VERSION)[1]
    for _name in ("serial number", "signature algorithm", "issuer"):
        body = _part(body)[1]
    times = _part(body, _SEQUENCE)[0]
    begins, rest = _time(times)
    return Validity(begins, _time(rest)[0])


def _part(raw: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """Content of the first DER element, and what follows it."""
    if tag is not None and raw[0] != tag:
        raise ValueError(f"tag {raw[0]:#x} in place of {tag:#x}")
    size, start = raw[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(raw[2:start], "big")
    if start + size > len(raw):
        raise ValueError("it is cut off")
    return raw[start : start + size], raw[start + size :]


def _time(raw: bytes) -> tuple[int, bytes]:
    content, rest = _part(raw)
    text = content.decode("ascii")
    if raw[0] == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif raw[0] != _GENERALIZED_TIME:
        raise ValueError(f"tag {raw[0]:#x} is no time")
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")), rest
