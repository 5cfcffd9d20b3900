# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel's functions go by their own names or by those of gcc's whole copies."""

from __future__ import annotations

import pytest
from btfleet._kernel.host import symbols
from hypothesis import given
from hypothesis import strategies as st


def find(text: str, name: str = "nf_ct_delete") -> str | None:
    return symbols.find(text.encode(), (name,))[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ffffffff81f383b0 T nf_ct_delete\n", "nf_ct_delete"),
        ("ffffffffc0801230 t nf_ct_delete\t[nf_conntrack]\n", "nf_ct_delete"),
        ("ffffffff81f383b0 T nf_ct_delete", "nf_ct_delete"),
        ("0 t nf_ct_delete.constprop.0\n", "nf_ct_delete.constprop.0"),
        ("0 t nf_ct_delete.isra.12\t[nf_conntrack]\n", "nf_ct_delete.isra.12"),
        ("0 t nf_ct_delete.constprop.0.isra.0\n", "nf_ct_delete.constprop.0.isra.0"),
        ("0 t nf_ct_delete.isra.0", "nf_ct_delete.isra.0"),
        ("0 t nf_ct_delete.llvm.1234567890123456789\n", "nf_ct_delete.llvm.1234567890123456789"),
        ("0 t nf_ct_delete.llvm.12\t[nf_conntrack]\n", "nf_ct_delete.llvm.12"),
    ],
)
def test_a_whole_function_is_found(text: str, expected: str) -> None:
    assert find(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 t nf_ct_delete_from_lists\n",
        "0 t xnf_ct_delete\n",
        "0 r __ksymtab_nf_ct_delete\n",
        "0 t nf_ct_delete.part.0\n",
        "0 t nf_ct_delete.cold\n",
        "0 t nf_ct_delete.constprop.0.cold\n",
        "0 t nf_ct_delete.isra.0.part.0\n",
        "0 t nf_ct_delete.constprop.0.isra.0.cold\t[nf_conntrack]\n",
        "0 t nf_ct_delete.constprop.\n",
    ],
)
def test_other_names_and_pieces_of_the_function_do_not_count(text: str) -> None:
    assert find(text) is None


def test_the_plain_name_wins_over_a_copy_before_it() -> None:
    text = "0 t nf_ct_delete.isra.0\n1 T nf_ct_delete\n2 t nf_ct_delete.constprop.0\n"
    assert find(text) == "nf_ct_delete"


def test_the_function_under_another_name_wins_over_a_copy_before_it() -> None:
    text = "0 t nf_ct_delete.constprop.0\n1 t nf_ct_delete.llvm.77\n"
    assert find(text) == "nf_ct_delete.llvm.77"


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("0 t f\n", None),
        ("0 t f.llvm.7\n", None),
        ("0 t f\n0 t f.cold\n0 t f.constprop.0\n", None),
        ("0 t g.part.0\n", None),
        ("0 t f.constprop.0\n", "a copy of the compiler's, whose arguments may be others"),
        ("0 t f.isra.0.llvm.7\n", "a copy of the compiler's, whose arguments may be others"),
        ("0 t f.part.0\n0 t f\n", "its beginning is inlined in some callers, which go past it"),
        (
            "0 t f\n0 t f.isra.0.part.1\n",
            "its beginning is inlined in some callers, which go past it",
        ),
    ],
)
def test_what_a_name_does_not_tell_is_said(text: str, doubt: str | None) -> None:
    raw = text.encode()
    found = symbols.doubts(raw, symbols.find(raw, ("f", "g")))
    assert found == ({"f": doubt} if doubt else {})


def test_a_copy_wins_over_pieces_before_it() -> None:
    text = "0 t nf_ct_delete.isra.0.cold\n1 t nf_ct_delete.part.0\n2 t nf_ct_delete.isra.0\n"
    assert find(text) == "nf_ct_delete.isra.0"


def test_the_deadlock_symbol_is_not_the_one_of_newer_kernels() -> None:
    """6.9 and later have tasks_rcu_exit_srcu_stall and no deadlock."""
    newer = b"ffffffff8120ba50 t tasks_rcu_exit_srcu_stall\n"
    older = b"ffffffff82a0ba50 d tasks_rcu_exit_srcu\n"
    assert symbols.find(newer)[symbols.DETACH_DEADLOCK] is None
    assert symbols.find(newer + older)[symbols.DETACH_DEADLOCK] == "tasks_rcu_exit_srcu"


def test_every_wanted_name_has_an_answer() -> None:
    assert symbols.find(b"") == dict.fromkeys(symbols.WANTED)


@given(st.text("nf_ct_delete. \t\n[]01abcopristld"))
def test_the_answer_is_a_name_of_the_table(text: str) -> None:
    found = find(text)
    assert found is None or found in text.split()


def test_this_machine_agrees_with_a_reading_line_by_line() -> None:
    with open("/proc/kallsyms", encoding="ascii") as stream:
        names = {line.split()[2] for line in stream}
    for name, found in symbols.find(symbols.read()).items():
        if name in names:
            assert found == name
        else:
            kinds = (f"{name}.constprop.", f"{name}.isra.", f"{name}.llvm.")
            clones = {n for n in names if n.startswith(kinds)}
            assert found in clones | {None}
