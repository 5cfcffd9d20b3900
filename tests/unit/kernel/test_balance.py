# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's number of flows tells that some came or went unseen, and noise does not."""

from __future__ import annotations

from btfleet._kernel.backends.netlink.balance import Balance


def judged(balance: Balance, *counts: int) -> list[bool]:
    return [balance.is_off(count) for count in counts]


def test_flows_that_were_announced_are_as_expected() -> None:
    balance = Balance()
    assert judged(balance, 5) == [False]
    for _number in range(3):
        balance.saw(1)
    balance.saw(-1)
    assert judged(balance, 7, 7, 7, 7, 7) == [False] * 5


def test_a_flow_that_came_or_went_unseen_shows_when_it_stays_so() -> None:
    for count in (6, 4):
        balance = Balance()
        assert judged(balance, 5, count, count, count) == [False, False, False, True]


def test_flows_that_are_just_being_made_are_no_reason() -> None:
    balance = Balance()
    assert not any(judged(balance, 5, 7, 5, 6, 5, 4, 6, 4, 5))


def test_after_a_comparison_it_begins_anew() -> None:
    balance = Balance()
    judged(balance, 5, 6, 6)
    balance.was_compared(has_found=True)
    assert judged(balance, 6, 6, 6, 6) == [False] * 4


def off_after(balance: Balance) -> int:
    """How many counts it takes it until it says that flows came unseen."""
    return judged(balance, 5, *[6] * 200).index(True)


def test_comparisons_for_its_sake_that_find_nothing_make_it_patient_and_one_that_does_quick() -> (
    None
):
    balance = Balance()
    assert off_after(balance) == 3
    balance.was_compared(has_found=False)
    assert off_after(balance) == 6
    balance.was_compared(has_found=True)
    for _number in range(100):
        off_after(balance)
        balance.was_compared(has_found=False)
    assert off_after(balance) == 3 * 64


def test_comparisons_that_were_due_anyway_leave_it_as_quick_as_it_is() -> None:
    balance = Balance()
    balance.was_compared(has_found=False)
    assert off_after(balance) == 3
