# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed metadata as text that can be changed: signed anew, with good keys, whenever it is taken.

A fuzzer never guesses a signature, so that it would see nothing of what lies behind its check. And
whoever has stolen a key signs what he likes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner

_END = b"\n"


@contextmanager
def fixed_keys() -> Iterator[None]:
    """What makes keys makes the same ones in every process."""
    numbers = itertools.count(1)

    def made(*_arguments: object) -> CryptoSigner:
        raw = next(numbers).to_bytes(32, "big")
        return CryptoSigner(Ed25519PrivateKey.from_private_bytes(raw))

    with mock.patch.object(CryptoSigner, "generate_ed25519", made):
        yield


def sign(text: bytes, signers: list[CryptoSigner]) -> bytes:
    """Metadata around the text of their signed part. Without signatures if it has no one form."""
    signatures: list[Any] = []
    try:
        payload = encode_canonical(json.loads(text))
    except Exception:  # noqa: BLE001 the library names no closed set of errors
        payload = None
    if payload is not None:
        try:
            raw = payload.encode()
        except UnicodeEncodeError:
            pass
        else:
            signatures = [signer.sign(raw).to_dict() for signer in signers]
    return b'{"signatures": %s, "signed": %s}' % (json.dumps(signatures).encode(), text)


def signed_part(raw: bytes) -> bytes:
    """The text of metadata's signed part, on one line."""
    return json.dumps(json.loads(raw)["signed"]).encode()


def lines(*parts: bytes) -> bytes:
    """One input from several lines."""
    return _END.join(parts)


def split(data: bytes) -> list[bytes]:
    """The lines of an input."""
    return data.split(_END)
