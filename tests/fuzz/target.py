# SPDX-License-Identifier: GPL-3.0-or-later
"""What every fuzz target is, and what every error's text has to be."""

from __future__ import annotations

from typing import Protocol

# Longer than any line of ours: what was found is cut where it is shown
MAX_LINE = 2000


class Target(Protocol):
    """One kind of input that nobody has verified.

    Made anew for each process: keys and clocks are fixed, so that a file found once is found again.
    """

    def seeds(self) -> list[bytes]:
        """Good inputs, to begin with."""

    def run(self, data: bytes) -> None:
        """Takes an input as the product does; raises AssertionError where it does harm."""


def check_line(error: object) -> None:
    """One line, which does not grow with what was put in."""
    text = str(error)
    assert "\n" not in text, text[:MAX_LINE]
    assert len(text) < MAX_LINE, text[:MAX_LINE]
