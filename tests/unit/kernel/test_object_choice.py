# SPDX-License-Identifier: GPL-3.0-or-later
"""A host takes the object for its architecture, or the one that the user named."""

from __future__ import annotations

import hashlib
import platform

import pytest
from btfleet._kernel.errors import AssetReadError
from btfleet._kernel.host.object_choice import ANY, chosen_digest

OFFERED = {"x86_64": "a" * 64, "aarch64": "b" * 64}


@pytest.mark.parametrize("arch", OFFERED)
def test_the_one_for_the_architecture(arch: str) -> None:
    assert chosen_digest(None, OFFERED, None, arch) == OFFERED[arch]


def test_the_running_machine_is_meant_by_default() -> None:
    assert chosen_digest(None, {platform.machine(): "c" * 64}, None) == "c" * 64


def test_the_one_that_the_user_named_fits_every_architecture() -> None:
    assert chosen_digest(None, {ANY: "d" * 64}, None, "riscv64") == "d" * 64


def test_content_on_the_host_is_taken_before_any_offer() -> None:
    digest = hashlib.sha256(b"object").hexdigest()
    assert chosen_digest(b"object", OFFERED, None, "x86_64") == digest
    assert chosen_digest(b"object", None, digest) == digest


@pytest.mark.parametrize(
    ("offered", "listed"), [(OFFERED, "aarch64, x86_64"), ({}, "none"), (None, "none")]
)
def test_no_object_for_this_host(offered: dict[str, str] | None, listed: str) -> None:
    with pytest.raises(AssetReadError) as caught:
        chosen_digest(None, offered, None, "riscv64")
    assert str(caught.value).startswith(f"no object for riscv64 (there is one for {listed}): ")


@pytest.mark.parametrize("content", [None, b"object"])
def test_another_digest_than_the_pinned_one(content: bytes | None) -> None:
    with pytest.raises(AssetReadError, match=f"^the object has sha256 .*, needed: {'e' * 64} "):
        chosen_digest(content, OFFERED, "e" * 64, "x86_64")


def test_the_pinned_digest_itself() -> None:
    assert chosen_digest(None, OFFERED, "a" * 64, "x86_64") == "a" * 64
