# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict over hosts of every kind: what rules out which tier, and how it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from btfleet._kernel.host import symbols
from btfleet._kernel.host.facts import BtfFacts, Facts, Probe
from btfleet._kernel.host.support import Verdict, assess, hint, without_privileges
from btfleet._kernel.spec import DEFAULT_TIERS

FENTRY, KPROBE, FEXIT, KRETPROBE = DEFAULT_TIERS
DEADLOCK = "symbol:tasks_rcu_exit_srcu"
SHARED = {
    "lockdown_allows_reads": "kernel lockdown is confidentiality, which forbids BPF programs to "
    "read kernel memory",
    "privileges": "not enough privileges, CAP_SYS_ADMIN is needed (become root)",
    "bpf_syscall": "the kernel refuses bpf(2)",
    "hash_maps": "the kernel refuses hash maps",
    "lru_hash_maps": "the kernel refuses LRU hash maps",
    "libbpf": "no usable libbpf",
    "btf": "no usable BTF",
    "bpffs": "no bpf file system to pin in (mount -t bpf bpf /sys/fs/bpf)",
    "nf_conntrack": "this kernel has no conntrack",
    "symbol:ctnetlink_fill_info": (
        "no function ctnetlink_fill_info to take existing flows in with"
    ),
    "nf_conntrack_netlink": "this kernel has no conntrack netlink to take existing flows in with",
}
FENTRY_ONLY = {
    "tracing_programs": "the kernel refuses tracing programs",
    "btf_function:__nf_conntrack_hash_insert": "__nf_conntrack_hash_insert is not in BTF",
}
KPROBE_ONLY = {
    "kprobe_programs": "the kernel refuses kprobe programs",
    "kprobe_events": "no kprobe can be made",
}
INSERT_GONE = {
    "symbol:__nf_conntrack_hash_insert": "no function __nf_conntrack_hash_insert to attach to",
}
NEWER, OLDER = symbols.DELETES
# What the tiers attach to where all is there
FUNCTIONS = (NEWER, symbols.INSERT, symbols.NETNS_ENDS[0])
DELETE_GONE = (f"symbol:{NEWER}", f"symbol:{OLDER}")
EVERY = (*SHARED, *FENTRY_ONLY, *KPROBE_ONLY, *INSERT_GONE, *DELETE_GONE)
CALLERS = ("__nf_conntrack_confirm", "nf_conntrack_hash_check_insert")
NO_BLOCKER = ("batch_lookups", "jit", "perf_links")


def host(lockdown: str | None = "none", **changed: str) -> Facts:
    """A host with everything, but for what is changed."""
    values = dict.fromkeys([*SHARED, *FENTRY_ONLY, *KPROBE_ONLY, *NO_BLOCKER], "yes")
    values["conntrack_events"] = "yes"
    values.update(dict.fromkeys([*INSERT_GONE, *DELETE_GONE], "yes"))
    values[DEADLOCK] = "no"
    values.update(changed)
    return Facts(
        kernel="6.12.0",
        arch="x86_64",
        lockdown=lockdown,
        libbpf={"path": "/usr/lib/libbpf.so.1", "version": "1.5"},
        btf=BtfFacts("kernel", "default", "/sys/kernel/btf/vmlinux"),
        modules={},
        symbols={name: name for name in symbols.WANTED},
        sysctl={},
        probes={name: Probe(value, f"seen of {name}") for name, value in values.items()},
    )


def test_a_host_with_everything_gets_the_best_tier() -> None:
    assert assess(host()) == Verdict(True, FENTRY, "pinned", {}, FUNCTIONS)


@pytest.mark.parametrize(("probe", "sentence"), SHARED.items())
def test_what_every_tier_needs_rules_out_every_tier(probe: str, sentence: str) -> None:
    reason = f"{sentence} (seen of {probe})"
    verdict = assess(host(**{probe: "no"}))
    assert verdict == Verdict(False, None, None, {key: [reason] for key in DEFAULT_TIERS})
    assert verdict.summary == reason


@pytest.mark.parametrize(("probe", "sentence"), FENTRY_ONLY.items())
def test_what_fentry_alone_needs_leaves_kprobe(probe: str, sentence: str) -> None:
    verdict = assess(host(**{probe: "no"}))
    assert verdict == Verdict(
        True, KPROBE, "pinned", {FENTRY: [f"{sentence} (seen of {probe})"]}, FUNCTIONS
    )


@pytest.mark.parametrize("probe", KPROBE_ONLY)
def test_what_kprobe_alone_needs_does_not_matter_to_fentry(probe: str) -> None:
    assert assess(host(**{probe: "no"})) == Verdict(True, FENTRY, "pinned", {}, FUNCTIONS)


@pytest.mark.parametrize(("probe", "sentence"), KPROBE_ONLY.items())
def test_what_kprobe_needs_counts_once_fentry_is_out(probe: str, sentence: str) -> None:
    verdict = assess(host(**{"tracing_programs": "no", probe: "no"}))
    assert not verdict.supported
    assert verdict.reasons == {
        **{
            key: ["the kernel refuses tracing programs (seen of tracing_programs)"]
            for key in (FENTRY, FEXIT)
        },
        **{key: [f"{sentence} (seen of {probe})"] for key in (KPROBE, KRETPROBE)},
    }


@pytest.mark.parametrize("seed", ["yes", "inconclusive"])
def test_without_kprobes_fentry_takes_existing_flows_in(seed: str) -> None:
    assert assess(host(kprobe_events="no", fentry_seed=seed)) == Verdict(
        True, FENTRY, "pinned", {}, FUNCTIONS
    )


def test_a_host_where_neither_can_take_them_in_is_told_both_causes() -> None:
    verdict = assess(host(kprobe_events="no", fentry_seed="no"))
    assert not verdict.supported
    assert verdict.summary == (
        "no kprobe can be made (seen of kprobe_events); "
        "core/fentry: existing flows cannot be taken in by fentry (seen of fentry_seed); "
        "core/fexit: existing flows cannot be taken in by fentry (seen of fentry_seed)"
    )


INLINED = next(iter(INSERT_GONE))


def test_where_the_insert_function_is_inlined_its_callers_are_taken() -> None:
    verdict = assess(host(**{INLINED: "no"}))
    assert (verdict.tier, verdict.lifecycle) == (FEXIT, "pinned")
    reason = f"{INSERT_GONE[INLINED]} (seen of {INLINED})"
    assert verdict.reasons == {FENTRY: [reason], KPROBE: [reason]}


@pytest.mark.parametrize(
    ("changed", "lifecycle"),
    [
        ({"tracing_programs": "no"}, "pinned"),
        ({DEADLOCK: "yes"}, "pinned"),
        ({f"btf_function:{CALLERS[0]}": "no"}, "pinned"),
        ({f"btf_function:{CALLERS[1]}": "no", "perf_links": "no"}, "held"),
    ],
)
def test_they_are_taken_by_kretprobes_where_fexit_is_out(
    changed: dict[str, str], lifecycle: str
) -> None:
    verdict = assess(host(**{INLINED: "no", **changed}))
    assert (verdict.tier, verdict.lifecycle) == (KRETPROBE, lifecycle)


def test_the_deadlock_can_be_taken_as_a_risk_for_fexit_too() -> None:
    facts = host(**{INLINED: "no", DEADLOCK: "yes"})
    assert assess(facts, allow_fentry_deadlock=True).tier == FEXIT


@pytest.mark.parametrize("caller", CALLERS)
def test_without_one_of_the_callers_nothing_is_left(caller: str) -> None:
    verdict = assess(host(**{INLINED: "no", f"symbol:{caller}": "no"}))
    assert not verdict.supported
    assert verdict.reasons[KRETPROBE] == [
        f"no function {caller} to attach to (seen of symbol:{caller})"
    ]


def test_a_copy_with_a_suffix_is_for_kprobes_alone() -> None:
    facts = host()
    renamed = {**facts.symbols, symbols.INSERT: f"{symbols.INSERT}.constprop.0"}
    verdict = assess(replace(facts, symbols=renamed))
    assert verdict.tier == KPROBE
    assert verdict.reasons[FENTRY] == [
        (
            f"the kernel calls {symbols.INSERT} {symbols.INSERT}.constprop.0, "
            "which only kprobes can be attached to"
        )
    ]


@pytest.mark.parametrize("tier", DEFAULT_TIERS)
def test_a_kernel_without_the_newer_delete_function_gets_the_older_one(tier: str) -> None:
    inlined = dict.fromkeys(INSERT_GONE, "no") if tier in (FEXIT, KRETPROBE) else {}
    kprobes = {"tracing_programs": "no"} if tier in (KPROBE, KRETPROBE) else {}
    changed = {**inlined, **kprobes}
    assert assess(host(**changed)).functions[0] == NEWER
    verdict = assess(host(**changed, **{f"symbol:{NEWER}": "no"}))
    assert (verdict.tier, verdict.functions[0]) == (tier, OLDER)


def test_fentry_takes_the_older_delete_function_where_btf_has_it_alone() -> None:
    verdict = assess(host(**{f"btf_function:{NEWER}": "no"}))
    assert (verdict.tier, verdict.functions[0]) == (FENTRY, OLDER)


def test_a_delete_function_with_a_suffix_is_for_kprobes_alone() -> None:
    facts = host()
    renamed = {**facts.symbols, NEWER: f"{NEWER}.isra.0"}
    assert assess(replace(facts, symbols=renamed)).functions[0] == OLDER
    renamed[OLDER] = None
    verdict = assess(replace(host(**{f"symbol:{OLDER}": "no"}), symbols=renamed))
    assert (verdict.tier, verdict.functions[0]) == (KPROBE, NEWER)


@pytest.mark.parametrize("probe", ["symbol", "btf_function"])
def test_the_end_of_a_namespace_is_watched_where_it_can_be(probe: str) -> None:
    older, newer = symbols.NETNS_ENDS
    verdict = assess(host(**{f"{probe}:{older}": "no"}))
    assert (verdict.tier, verdict.functions) == (FENTRY, (*FUNCTIONS[:-1], newer))
    verdict = assess(host(**dict.fromkeys((f"{probe}:{older}", f"{probe}:{newer}"), "no")))
    assert (verdict.tier, verdict.functions) == (FENTRY, FUNCTIONS[:-1])


def test_without_a_delete_function_there_is_no_tier() -> None:
    verdict = assess(host(**dict.fromkeys(DELETE_GONE, "no")))
    assert (verdict.supported, verdict.functions) == (False, ())
    assert set(verdict.reasons) == set(DEFAULT_TIERS)
    for reasons in verdict.reasons.values():
        assert f"no function {NEWER} to attach to (seen of symbol:{NEWER})" in reasons


@pytest.mark.parametrize(
    "probe",
    [*SHARED, *FENTRY_ONLY, *KPROBE_ONLY, *INSERT_GONE, *DELETE_GONE, *NO_BLOCKER, DEADLOCK],
)
def test_a_probe_without_an_answer_rules_nothing_out(probe: str) -> None:
    assert assess(host(**{probe: "inconclusive"})) == Verdict(True, FENTRY, "pinned", {}, FUNCTIONS)


@pytest.mark.parametrize(
    "probe",
    [*SHARED, *FENTRY_ONLY, *KPROBE_ONLY, *INSERT_GONE, *DELETE_GONE, *NO_BLOCKER, DEADLOCK],
)
def test_a_probe_that_was_not_made_rules_nothing_out(probe: str) -> None:
    facts = host()
    probes = {name: value for name, value in facts.probes.items() if name != probe}
    assert assess(replace(facts, probes=probes)).tier == FENTRY


@pytest.mark.parametrize("probe", ["batch_lookups", "jit"])
def test_what_only_makes_it_slower_rules_nothing_out(probe: str) -> None:
    assert assess(host(**{probe: "no"})).tier == FENTRY


def test_a_kernel_whose_detach_can_deadlock_gets_kprobe() -> None:
    verdict = assess(host(**{DEADLOCK: "yes"}))
    assert verdict.tier == KPROBE
    (reason,) = verdict.reasons[FENTRY]
    assert reason.startswith("the kernel has tasks_rcu_exit_srcu: detaching")
    assert "allow_fentry_deadlock" in reason


def test_the_deadlock_can_be_taken_as_a_risk() -> None:
    verdict = assess(host(**{DEADLOCK: "yes"}), allow_fentry_deadlock=True)
    assert verdict == Verdict(True, FENTRY, "pinned", {}, FUNCTIONS)


def test_that_risk_lifts_no_other_reason() -> None:
    verdict = assess(
        host(**{DEADLOCK: "yes", "tracing_programs": "no"}), allow_fentry_deadlock=True
    )
    assert verdict.tier == KPROBE
    assert len(verdict.reasons[FENTRY]) == 1


def test_the_spec_can_forbid_the_best_tier() -> None:
    verdict = assess(host(), tiers=(KPROBE,))
    assert verdict == Verdict(
        True, KPROBE, "pinned", {FENTRY: ["the spec allows only core/kprobe"]}, FUNCTIONS
    )


def test_the_spec_can_forbid_what_the_host_could_fall_back_to() -> None:
    verdict = assess(host(tracing_programs="no"), tiers=(FENTRY,))
    assert not verdict.supported
    assert verdict.reasons[KPROBE] == ["the spec allows only core/fentry"]
    assert verdict.summary.startswith(
        "core/fentry: the kernel refuses tracing programs (seen of tracing_programs); "
        "core/kprobe: the spec allows only core/fentry; core/fexit: "
    )


def test_kprobe_links_that_cannot_be_pinned_are_held() -> None:
    assert assess(host(tracing_programs="no", perf_links="no")).lifecycle == "held"
    assert assess(host(tracing_programs="no", perf_links="inconclusive")).lifecycle == "pinned"
    # fentry links are not perf links
    assert assess(host(perf_links="no")).lifecycle == "pinned"
    # and the lifecycle of those that are needed goes for kretprobes too
    inlined = host(**{INLINED: "no", "tracing_programs": "no", "perf_links": "no"})
    assert assess(inlined).lifecycle == "held"


@pytest.mark.parametrize("mode", ["integrity", "confidentiality"])
def test_a_refusal_under_lockdown_names_it(mode: str) -> None:
    verdict = assess(host(mode, tracing_programs="no", kprobe_programs="no"))
    for tier in DEFAULT_TIERS:
        assert f" programs under kernel lockdown={mode} (" in verdict.reasons[tier][0]


@pytest.mark.parametrize("mode", ["none", None])
def test_a_refusal_without_lockdown_does_not_name_it(mode: str | None) -> None:
    verdict = assess(host(mode, tracing_programs="no", kprobe_programs="no"))
    assert "lockdown" not in str(verdict.reasons)


def test_confidentiality_comes_first_and_with_its_evidence() -> None:
    verdict = assess(
        host("confidentiality", lockdown_allows_reads="no", tracing_programs="no", btf="no")
    )
    assert not verdict.supported
    for texts in verdict.reasons.values():
        assert texts[0].endswith("read kernel memory (seen of lockdown_allows_reads)")
    # what all tiers share is said once
    assert verdict.summary.count("lockdown is confidentiality") == 1
    assert verdict.summary.count("no usable BTF") == 1


def test_every_reason_against_a_tier_is_given() -> None:
    gone = (*INSERT_GONE, *DELETE_GONE)  # of the two for deletes, the better one is named
    verdict = assess(host(**dict.fromkeys([*SHARED, *FENTRY_ONLY, *KPROBE_ONLY, *gone], "no")))
    assert len(verdict.reasons[FENTRY]) == len(SHARED) + len(FENTRY_ONLY) + len(gone) - 1
    assert len(verdict.reasons[KPROBE]) == len(SHARED) + len(KPROBE_ONLY) + len(gone) - 1


@pytest.mark.parametrize(
    "changed",
    [{}, {"btf": "no"}, {"tracing_programs": "no"}, {"tracing_programs": "no", DEADLOCK: "yes"}],
)
@pytest.mark.parametrize("tiers", [(FENTRY, KPROBE), (FENTRY,), (KPROBE,)])
def test_a_summary_is_one_line(changed: dict[str, str], tiers: tuple[str, ...]) -> None:
    verdict = assess(host(**changed), tiers)
    assert len(verdict.summary.splitlines()) == 1
    assert verdict.to_dict()["summary"] == verdict.summary
    if verdict.supported:
        assert verdict.summary == f"supported: tier {verdict.tier}, {verdict.lifecycle}"


# --- runtime ------------------------------------------------------------------------------------

WITH_RUNTIME = (*DEFAULT_TIERS, "runtime")
NO_BTF = {"btf": "no", "bcc": "yes", "kernel_headers": "yes"}


def test_runtime_is_taken_where_there_is_no_btf_and_says_why() -> None:
    verdict = assess(host(**NO_BTF), WITH_RUNTIME)
    assert (verdict.tier, verdict.lifecycle, verdict.degraded) == ("runtime", "pinned", False)
    assert list(verdict.reasons) == list(DEFAULT_TIERS)
    assert assess(host(**NO_BTF, perf_links="no"), WITH_RUNTIME).lifecycle == "held"


def test_runtime_is_not_taken_where_the_kernel_has_types() -> None:
    assert assess(host(bcc="yes", kernel_headers="yes"), WITH_RUNTIME).tier == FENTRY


def test_runtime_is_not_taken_unasked_but_named() -> None:
    facts = host(**NO_BTF)
    verdict = assess(facts)
    assert not verdict.supported
    assert "runtime" not in verdict.reasons
    assert hint(facts, verdict).startswith("tier runtime would be possible, if it is allowed")


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        ("bcc", "no bcc to read the kernel's headers with (python3-bpfcc)"),
        ("kernel_headers", "no headers of this kernel"),
        *((name, text) for name, text in {**SHARED, **KPROBE_ONLY}.items() if name != "btf"),
    ],
)
def test_what_runtime_needs_rules_it_out(probe: str, sentence: str) -> None:
    verdict = assess(host(**{**NO_BTF, probe: "no"}), WITH_RUNTIME)
    assert not verdict.supported
    assert verdict.reasons["runtime"] == [f"{sentence} (seen of {probe})"]
    assert f"runtime: {sentence}" in verdict.summary


def test_runtime_takes_the_callers_where_the_insert_function_is_inlined() -> None:
    assert assess(host(**NO_BTF, **{INLINED: "no"}), WITH_RUNTIME).tier == "runtime"
    gone = {INLINED: "no", f"symbol:{CALLERS[0]}": "no"}
    verdict = assess(host(**NO_BTF, **gone), WITH_RUNTIME)
    assert f"no function {CALLERS[0]} to attach to" in verdict.reasons["runtime"][0]


# --- netlink ------------------------------------------------------------------------------------

ALL = (FENTRY, KPROBE, "netlink")
LOCKED = {"lockdown_allows_reads": "no", "tracing_programs": "no"}


def test_netlink_comes_after_all_others() -> None:
    assert assess(host(), ALL).tier == FENTRY
    assert assess(host(tracing_programs="no"), ALL).tier == KPROBE


def test_netlink_is_taken_where_nothing_may_be_loaded_and_says_why() -> None:
    verdict = assess(host("confidentiality", **LOCKED), ALL)
    assert (verdict.tier, verdict.lifecycle, verdict.degraded) == ("netlink", "held", True)
    assert set(verdict.reasons) == set(DEFAULT_TIERS)
    assert verdict.summary.startswith("supported: tier netlink, held (degraded: kernel lockdown is")
    assert verdict.to_dict()["degraded"] is True


def test_netlink_is_not_taken_unasked_but_named() -> None:
    facts = host("confidentiality", **LOCKED)
    verdict = assess(facts)
    assert not verdict.supported
    assert "netlink" not in verdict.reasons
    assert hint(facts, verdict).startswith("tier netlink would be possible, if it is allowed")


def test_nothing_is_hinted_at_where_there_is_no_need_or_no_way() -> None:
    assert hint(host(), assess(host())) == ""
    facts = host(bpffs="no")
    assert hint(facts, assess(facts)) == ""


def test_the_way_out_is_named_with_what_it_needs_first() -> None:
    facts = host("confidentiality", **LOCKED, bpffs="no", conntrack_events="no")
    assert hint(facts, assess(facts)) == (
        "tier netlink would be possible, if it is allowed (conntracker_tiers), after: "
        "mount -t bpf bpf /sys/fs/bpf; sysctl net.netfilter.nf_conntrack_events=2"
    )


PRIVILEGED = ("bpf_syscall", "hash_maps", "lru_hash_maps", "kprobe_programs", "tracing_programs")


def test_what_the_kernel_refuses_to_an_ordinary_user_is_not_known() -> None:
    refused = dict.fromkeys([*PRIVILEGED, "privileges"], "no")
    facts = replace(host(**refused), uid=1000)
    assert not assess(facts).supported
    seen = without_privileges(facts)
    assert seen
    assert assess(seen) == assess(host())
    for seen_by_all in ({"libbpf": "no"}, {"kprobe_events": "no", "fentry_seed": "no"}):
        seen = without_privileges(replace(host(**refused, **seen_by_all), uid=1000))
        assert seen
        assert not assess(seen).supported


def test_a_refused_attempt_to_take_flows_in_is_not_known() -> None:
    facts = host(privileges="no", kprobe_events="no")
    probes = {**facts.probes, "fentry_seed": Probe("no", "BPF_PROG_LOAD: EPERM")}
    seen = without_privileges(replace(facts, uid=1000, probes=probes))
    assert seen
    assert assess(seen).supported


def test_root_without_capabilities_and_whoever_has_them_know_all() -> None:
    assert without_privileges(host(privileges="no")) is None
    assert without_privileges(replace(host(), uid=1000)) is None


def test_each_reason_is_there_once_with_its_tiers() -> None:
    verdict = assess(host("confidentiality", **LOCKED))
    found = verdict.by_reason
    assert len(found) < sum(map(len, verdict.reasons.values()))
    for tier, reasons in verdict.reasons.items():
        assert reasons == [reason for reason, tiers in found.items() if tier in tiers]


NETLINK_NEEDS = (
    *("privileges", "bpf_syscall", "hash_maps", "lru_hash_maps", "bpffs"),
    *("nf_conntrack", "nf_conntrack_netlink", "conntrack_events"),
)


@pytest.mark.parametrize("probe", NETLINK_NEEDS)
def test_what_netlink_needs_rules_it_out(probe: str) -> None:
    verdict = assess(host(**{**LOCKED, probe: "no"}), ALL)
    assert not verdict.supported
    (reason,) = verdict.reasons["netlink"]
    assert reason.endswith(f"(seen of {probe})")
    assert f"netlink: {reason}" in verdict.summary


@pytest.mark.parametrize("probe", sorted({*SHARED, *KPROBE_ONLY} - set(NETLINK_NEEDS)))
def test_what_only_programs_need_does_not_matter_to_netlink(probe: str) -> None:
    assert assess(host(**{**LOCKED, probe: "no"}), ALL).tier == "netlink"
