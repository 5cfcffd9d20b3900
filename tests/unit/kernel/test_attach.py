# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tier attaches, in an order in which nothing is written whose end would be missed."""

from __future__ import annotations

import pytest
from btfleet._kernel.backends import attach
from btfleet._kernel.host import symbols
from btfleet._kernel.spec import DEFAULT_TIERS as TIERS

PLAIN: dict[str, str | None] = {name: name for name in symbols.ATTACHED}
PART = {**PLAIN, symbols.DELETE_PART: "nf_ct_delete.part.0"}


def test_every_tier_has_its_probes() -> None:
    assert tuple(attach.TIERS) == TIERS


@pytest.mark.parametrize("tier", TIERS)
def test_deleting_comes_first_and_inserting_last(tier: str) -> None:
    roles = [probe.role for probe in attach.probes_of(tier, PLAIN)]
    assert roles[0] == "delete"
    kinds = [role.partition("_")[0] for role in roles[1:]]
    assert kinds == sorted(kinds, key=["note", "insert"].index)
    assert len(set(roles)) == len(roles)


def test_kprobes_end_flows_where_the_kernel_does() -> None:
    for tier in ("core/kprobe", "core/kretprobe"):
        first = attach.probes_of(tier, PART)[0]
        assert (first.program, first.function) == ("kprobe_delete_part", symbols.DELETE_PART)
        assert attach.probes_of(tier, PLAIN)[0].function == symbols.DELETE


def test_tier_runtime_is_kprobes_on_what_there_is() -> None:
    assert attach.probes_of("runtime", PLAIN) == attach.TIERS["core/kprobe"]
    inlined = {**PLAIN, symbols.INSERT: None}
    assert attach.probes_of("runtime", inlined) == attach.TIERS["core/kretprobe"]


class Object:
    """Notes what is attached to what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, bool]] = []

    def attach(self, program: str, symbol: str | None, at_return: bool) -> int:
        self.calls.append((program, symbol, at_return))
        return 7


def test_kprobes_take_the_functions_real_name_and_others_what_their_section_says() -> None:
    found = {**PART, symbols.CONFIRM: "__nf_conntrack_confirm.isra.0"}
    made = Object()
    for tier in ("core/fexit", "core/kretprobe"):
        for probe in attach.probes_of(tier, found):
            assert probe.attach(made, found) == 7  # type: ignore[arg-type]
    assert made.calls == [
        ("fentry_delete", None, False),
        ("fexit_check_insert", None, False),
        ("fexit_confirm", None, False),
        ("kprobe_delete_part", "nf_ct_delete.part.0", False),
        ("kprobe_check_insert", "nf_conntrack_hash_check_insert", False),
        ("kprobe_confirm", "__nf_conntrack_confirm.isra.0", False),
        ("kretprobe_check_insert", "nf_conntrack_hash_check_insert", True),
        ("kretprobe_confirm", "__nf_conntrack_confirm.isra.0", True),
    ]
