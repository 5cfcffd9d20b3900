# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a namespace has as many flows as its events make it have. Pure.

Events can be masked: by `ct event set` in an nft rule for a flow's beginning or end, or by
`nf_conntrack_events` for all of them. The kernel's own number of flows, which costs next to nothing
to ask for, tells that something came or went unseen.
"""

from __future__ import annotations

# Flows that are being made, and those whose last packet is on its way, are in the kernel's number
# and in no event: so a difference has to stay for so many counts in a row
_IN_A_ROW = 3
# How many times as long it waits, at the most, after comparisons for its sake that found nothing
_MOST_PATIENCE = 64


class Balance:
    """The number of flows of one namespace, followed by its events."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._off = 0
        self._in_a_row = 0
        self._patience = 1

    def saw(self, change: int) -> None:
        """Count a flow that came (1) or went (-1)."""
        if self._expected is not None:
            self._expected += change

    def is_off(self, count: int) -> bool:
        """Judge the kernel's number, given between the events in their order: True where flows
        came or went that no event has told of, and a comparison is due.
        """
        if self._expected is None:
            self._expected = count
            return False
        off = count - self._expected
        same_side = off * self._off > 0
        self._in_a_row = self._in_a_row + 1 if same_side else int(off != 0)
        self._off = off
        return self._is_over()

    def _is_over(self) -> bool:
        return self._in_a_row >= _IN_A_ROW * self._patience

    def was_compared(self, has_found: bool) -> None:
        """Begin anew: whatever was off is known now. `has_found` says whether anything was."""
        if has_found:
            self._patience = 1
        elif self._is_over():
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        self._expected = None
        self._off = self._in_a_row = 0
