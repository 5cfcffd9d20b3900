# SPDX-License-Identifier: GPL-3.0-or-later
"""What is missing on a machine."""

from __future__ import annotations

import pytest

from lab.setup_machine import PACKAGES, major_version, missing_packages


def query(qemu: str) -> str:
    versions = {"qemu-system-x86": qemu, "qemu-utils": qemu}
    return "".join(f"ii  {name} {versions.get(name, '1.0')}\n" for name in PACKAGES)


def test_nothing_is_missing() -> None:
    assert missing_packages(query("1:10.0.2+ds-2+deb13u1~bpo12+1")) == []


def test_qemu_is_too_old() -> None:
    assert missing_packages(query("1:7.2+dfsg-7")) == ["qemu-system-x86", "qemu-utils"]


def test_absent_and_removed_packages() -> None:
    text = query("1:10.0").replace("ii  debootstrap", "rc  debootstrap")
    assert missing_packages(text) == ["debootstrap"]
    assert missing_packages("") == list(PACKAGES)


@pytest.mark.parametrize(
    ("version", "major"), [("1:10.0.2+ds", 10), ("7.2", 7), ("2:1.0", 1), ("", 0)]
)
def test_major_version(version: str, major: int) -> None:
    assert major_version(version) == major
