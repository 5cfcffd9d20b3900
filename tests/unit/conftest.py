# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests import the agent as `btfleet` and the collection by its full name.

Both names lead to this checkout, through links that `make venv` puts there. The kernel library has
two names and is loaded once for each: test it as `btfleet.kernel`, and compare no classes across.
"""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def pytest_configure() -> None:
    """Say what to do where an import error would puzzle."""
    for link in ("agent/btfleet/kernel", "build/collections/ansible_collections/btfleet/conntrack"):
        if not (CHECKOUT / link).is_symlink():
            pytest.exit(f"{link} is missing: run `make venv` first", returncode=4)


@pytest.fixture
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT
