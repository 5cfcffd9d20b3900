# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache key: the same for the same input, another one for any change."""

from __future__ import annotations

import dataclasses
import re

from lab.apt_sources import Mirror
from lab.catalogue import BOOKWORM, HOSTS, TRIXIE, Image
from lab.image import EMULATE, image_key, image_sources

MIRROR = Mirror("http://m.example/debian", "http://m.example/security", "/k.gpg")


def key(image: Image = BOOKWORM, mirror: Mirror = MIRROR, script: str = "a", ssh: str = "b") -> str:
    return image_key(image, image_sources(image, mirror), script, ssh)


def test_key_is_stable() -> None:
    assert re.fullmatch("[0-9a-f]{16}", key())
    assert key() == key(dataclasses.replace(BOOKWORM))
    # where this machine keeps its keyring is nothing of the image
    assert key() == key(mirror=dataclasses.replace(MIRROR, keyring="/other.gpg"))


def test_key_changes_with_everything_that_goes_in() -> None:
    keys = [
        key(),
        key(TRIXIE),
        key(dataclasses.replace(BOOKWORM, kernel="linux-image-amd64")),
        key(dataclasses.replace(BOOKWORM, packages=("libbpf0",))),
        key(dataclasses.replace(BOOKWORM, disk_size="4G")),
        key(mirror=dataclasses.replace(MIRROR, main="http://n.example/debian")),
        key(mirror=dataclasses.replace(MIRROR, security="")),
        key(script="c"),
        key(ssh="d"),
    ]
    assert len(set(keys)) == len(keys)


def test_kernel_suite_becomes_a_source() -> None:
    image = dataclasses.replace(TRIXIE, kernel_suite="trixie-backports")
    suites = [source.suite for source in image_sources(image, MIRROR)]
    assert suites == ["trixie", "trixie-updates", "trixie-backports", "trixie-security"]


def test_catalogue_names_are_keys() -> None:
    assert all(name == host.name for name, host in HOSTS.items())
    assert {"debian12", "debian13"} <= set(HOSTS)


def test_the_emulator_is_for_the_programs_of_its_architecture() -> None:
    """Magic and mask against ELF headers, of a position-independent program, written here."""
    rule = re.search(r"':qemu-aarch64:M::(.*?):(.*?):", EMULATE["arm64"])
    assert rule
    magic, mask = (
        part.encode().decode("unicode_escape").encode("latin-1") for part in rule.groups()
    )
    arm = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"
    for machine, taken in ((b"\xb7", True), (b"\x3e", False)):
        header = arm[:18] + machine + arm[19:]
        found = bytes(one & two for one, two in zip(header, mask, strict=True))
        assert (found == magic) is taken
