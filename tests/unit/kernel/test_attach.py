# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tier attaches, in an order in which nothing is written whose end would be missed."""

from __future__ import annotations

import pytest
from btfleet._kernel.backends import attach
from btfleet._kernel.host import symbols
from btfleet._kernel.spec import DEFAULT_TIERS as TIERS

END = symbols.NETNS_ENDS[0]
PLAIN: dict[str, str | None] = {name: name for name in symbols.ATTACHED}


@pytest.mark.parametrize("delete", symbols.DELETES)
@pytest.mark.parametrize("tier", TIERS)
def test_deleting_comes_first_and_inserting_last(tier: str, delete: str) -> None:
    roles = [probe.role for probe in attach.probes_of(tier, (delete, END), PLAIN)]
    assert roles[:2] == ["delete", "netns_end"]
    kinds = [role.partition("_")[0] for role in roles[2:]]
    assert kinds == sorted(kinds, key=["note", "insert"].index)
    assert len(set(roles)) == len(roles)


@pytest.mark.parametrize("delete", symbols.DELETES)
@pytest.mark.parametrize("tier", TIERS)
def test_the_delete_program_is_the_one_for_its_function(tier: str, delete: str) -> None:
    first = attach.probes_of(tier, (delete,), PLAIN)[0]
    assert first.function == delete
    # Only the one for the older function has to tell flows that live on from those that end
    assert first.program.endswith("_expectations") == (delete == symbols.REMOVE_EXPECTATIONS)


@pytest.mark.parametrize("delete", symbols.DELETES)
def test_tier_runtime_is_kprobes_on_what_there_is(delete: str) -> None:
    runtime = attach.probes_of("runtime", (delete,), PLAIN)
    assert runtime == attach.probes_of("core/kprobe", (delete,), PLAIN)
    inlined = {**PLAIN, symbols.INSERT: None}
    runtime = attach.probes_of("runtime", (delete,), inlined)
    assert runtime == attach.probes_of("core/kretprobe", (delete,), inlined)


class Object:
    """Notes what is attached to what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, bool]] = []

    def attach(self, program: str, symbol: str | None, at_return: bool) -> int:
        self.calls.append((program, symbol, at_return))
        return 7


def test_kprobes_take_the_functions_real_name_and_others_what_their_section_says() -> None:
    old = symbols.REMOVE_EXPECTATIONS
    found = {**PLAIN, old: f"{old}.isra.0", symbols.CONFIRM: "__nf_conntrack_confirm.isra.0"}
    made = Object()
    for tier, delete in (("core/fexit", symbols.DELETE), ("core/kretprobe", old)):
        for probe in attach.probes_of(tier, (delete,), found):
            assert probe.attach(made, found) == 7  # type: ignore[arg-type]
    assert made.calls == [
        ("fentry_delete", None, False),
        ("fexit_check_insert", None, False),
        ("fexit_confirm", None, False),
        ("kprobe_delete_expectations", "nf_ct_remove_expectations.isra.0", False),
        ("kprobe_check_insert", "nf_conntrack_hash_check_insert", False),
        ("kprobe_confirm", "__nf_conntrack_confirm.isra.0", False),
        ("kretprobe_check_insert", "nf_conntrack_hash_check_insert", True),
        ("kretprobe_confirm", "__nf_conntrack_confirm.isra.0", True),
    ]
