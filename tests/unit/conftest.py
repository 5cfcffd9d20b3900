# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests import the agent as `btfleet` and the collection by its full name.

Both names lead to this checkout, through links that `make venv` puts there. The kernel library has
two names and is loaded once for each: test it as `btfleet._kernel`, and compare no classes across.
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def pytest_configure() -> None:
    """Say what to do where an import error would puzzle."""
    settings.register_profile("unit", deadline=None, max_examples=100)  # no test asserts timing
    settings.load_profile("unit")
    collection = "build/collections/ansible_collections/btfleet/conntrack"
    for link in ("agent/btfleet/_kernel", "agent/btfleet/_config", collection):
        if not (CHECKOUT / link).is_symlink():
            pytest.exit(f"{link} is missing: run `make venv` first", returncode=4)


@pytest.fixture
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def objects() -> dict[str, Path]:
    """The built object of each architecture."""
    folder = CHECKOUT / "build" / "bpf"
    found = {path.name[len("conntrack-") : -len(".bpf.o")]: path for path in folder.glob("*.bpf.o")}
    if set(found) != {"x86_64", "aarch64"}:
        pytest.fail(f"{folder} lacks the object: run `make object` first")
    return found


@pytest.fixture(scope="session")
def own_object(objects: dict[str, Path]) -> bytes:
    """The object for this machine."""
    return objects[platform.machine()].read_bytes()
