# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict: which tier a host gets, and why no better one. Pure functions over `Facts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Callable, Collection

from ..spec import BY_NAME, DEFAULT_TIERS, NETLINK, RUNTIME, TIERS
from . import symbols
from .facts import NO, YES, Facts
from .modules import MODULE, NETLINK_MODULE

PINNED, HELD = "pinned", "held"

# What a tier attaches to: the function that inserts flows, or its callers where it is inlined
ENTRY = (symbols.INSERT,)
CALLERS = (symbols.CONFIRM, symbols.CHECK_INSERT)


@dataclass(frozen=True)
class Verdict:
    """`tier` and `lifecycle` are None where no tier is possible.

    `reasons` has, for each tier better than the chosen one, every cause found against it, each
    with its evidence. `functions` are those that the tier attaches to.
    """

    supported: bool
    tier: str | None
    lifecycle: str | None
    reasons: dict[str, list[str]]
    functions: tuple[str, ...] = ()

    @property
    def degraded(self) -> bool:
        """Whether a process keeps the table, which follows the kernel from a distance."""
        return self.tier == NETLINK

    @property
    def summary(self) -> str:
        """One line for a person."""
        if self.supported:
            chosen = f"supported: tier {self.tier}, {self.lifecycle}"
            return f"{chosen} (degraded: {self.why_no_better})" if self.degraded else chosen
        last = [f"{tier}: {text}" for tier in BY_NAME for text in self.reasons.get(tier, ())]
        return "; ".join([self.why_no_better, *last])

    @property
    def why_no_better(self) -> str:
        """The reasons against the tiers that nobody has to ask for."""
        every = [texts for tier, texts in self.reasons.items() if tier not in BY_NAME]
        if not every:
            return ""
        # What stands against all of them is said once
        shared = [text for text in every[0] if all(text in texts for texts in every)]
        own = [
            f"{tier}: {text}"
            for tier, texts in self.reasons.items()
            for text in texts
            if text not in shared and tier not in BY_NAME
        ]
        return "; ".join(shared + own)

    @property
    def by_reason(self) -> dict[str, list[str]]:
        """Each reason once, with the tiers that it stands against."""
        found: dict[str, list[str]] = {}
        for tier, texts in self.reasons.items():
            for text in texts:
                found.setdefault(text, []).append(tier)
        return found

    def to_dict(self) -> dict[str, object]:
        """Plain data, as in JSON."""
        return {**asdict(self), "degraded": self.degraded, "summary": self.summary}


def assess(
    facts: Facts, tiers: tuple[str, ...] = DEFAULT_TIERS, allow_fentry_deadlock: bool = False
) -> Verdict:
    """Goes down the ladder. A probe that is inconclusive does not rule a tier out."""
    unreadable = _against_reading(facts)
    shared = [*unreadable, *_refusals(facts, _SHARED)]
    inserts = CALLERS if _is(facts, f"symbol:{symbols.INSERT}", NO) else ENTRY

    def tracing(*functions: str) -> list[str]:
        return _against_tracing(facts, functions, allow_fentry_deadlock)

    def kprobes(*functions: str) -> list[str]:
        return _against_kprobe(facts, functions)

    def runtime(*functions: str) -> list[str]:
        return [*unreadable, *_refusals(facts, _RUNTIME_NEEDS), *kprobes(*functions)]

    against: dict[str, tuple[Callable[..., list[str]], tuple[str, ...]]] = {
        "core/fentry": (tracing, ENTRY),
        "core/kprobe": (kprobes, ENTRY),
        "core/fexit": (tracing, CALLERS),
        "core/kretprobe": (kprobes, CALLERS),
        RUNTIME: (runtime, inserts),
    }
    reasons: dict[str, list[str]] = {}
    for tier in TIERS:
        if tier in BY_NAME and tier not in tiers:
            continue  # nobody has asked for it, so it needs no excuse
        found = [] if tier in BY_NAME else [*shared]
        functions: tuple[str, ...] = ()
        if tier == NETLINK:
            found += _refusals(facts, _NETLINK_NEEDS)
        else:
            look, inserting = against[tier]
            functions = (_choose_delete(look), *inserting)
            found += look(*functions)
            # Reconciliation can do without
            ends = [name for name in symbols.NETNS_ENDS if _fits(look, name)]
            functions = (*functions, *ends[:1])
        if tier not in tiers:
            found.append(f"the spec allows only {', '.join(tiers)}")
        if not found:
            return Verdict(True, tier, lifecycle(facts, tier), reasons, functions)
        reasons[tier] = found
    return Verdict(False, None, None, reasons)


def _choose_delete(against: Callable[..., list[str]]) -> str:
    """The best function for the delete program; where none will do, the one to complain about."""
    return next((name for name in symbols.DELETES if _fits(against, name)), symbols.DELETE)


def _fits(against: Callable[..., list[str]], function: str) -> bool:
    """Whether nothing is said against this very function."""
    return against(function) == against()


def hint(facts: Facts, verdict: Verdict) -> str:
    """What could be done about a host that is not supported; empty if nothing."""
    if verdict.supported:
        return ""
    for tier in BY_NAME:
        if tier not in verdict.reasons and assess(facts, (tier,)).supported:
            return f"tier {tier} would be possible, if it is allowed (conntracker_tiers)"
    remedies = [remedy for probe, remedy in _NETLINK_REMEDIES if _is(facts, probe, NO)]
    remedied = _without(facts, [probe for probe, _remedy in _NETLINK_REMEDIES])
    if assess(remedied).supported:
        return ""  # a reason says already what a better tier needs
    if NETLINK not in verdict.reasons and assess(remedied, (NETLINK,)).supported:
        return (
            f"tier {NETLINK} would be possible, if it is allowed (conntracker_tiers), after: "
            + "; ".join(remedies)
        )
    return ""


def without_privileges(facts: Facts) -> Facts | None:
    """Return what an ordinary user's process really knows, None where it knows all.

    What the kernel refuses to such a process it may well allow to root. Root without capabilities,
    as in a container, is refused for good.
    """
    if facts.uid == 0 or not _is(facts, "privileges", NO):
        return None
    refused = [
        name
        for name, probe in facts.probes.items()
        if name in _TAKES_PRIVILEGES or (name in _MAY_TAKE_PRIVILEGES and "EPERM" in probe.evidence)
    ]
    return _without(facts, refused)


def _without(facts: Facts, probes: Collection[str]) -> Facts:
    kept = {name: probe for name, probe in facts.probes.items() if name not in probes}
    return replace(facts, probes=kept)


def lifecycle(facts: Facts, tier: str) -> str:
    """Whether the kernel keeps a tier by itself, or a process has to keep it or its links."""
    if tier == NETLINK:
        return HELD
    if tier in ("core/kprobe", "core/kretprobe", RUNTIME) and _is(facts, "perf_links", NO):
        return HELD
    return PINNED


def _is(facts: Facts, probe: str, value: str) -> bool:
    return probe in facts.probes and facts.probes[probe].value == value


# The kernel answers these with EPERM to whoever is not root
_TAKES_PRIVILEGES = frozenset(
    {
        *("privileges", "bpf_syscall", "hash_maps", "lru_hash_maps", "kprobe_programs"),
        *("tracing_programs", "perf_links"),
    }
)
# Those that look at something else first, which everybody may
_MAY_TAKE_PRIVILEGES = frozenset({"fentry_seed"})
# What stands against the tier netlink and can be had
_NETLINK_REMEDIES = (
    ("bpffs", "mount -t bpf bpf /sys/fs/bpf"),
    ("conntrack_events", "sysctl net.netfilter.nf_conntrack_events=2"),
)
_SEED = f"symbol:{symbols.SEED}"
_KPROBES = ("kprobe_events", "no kprobe can be made")
# What every tier of the object needs: probe and the sentence if it says no
_SHARED = (
    ("privileges", "not enough privileges, CAP_SYS_ADMIN is needed (become root)"),
    ("bpf_syscall", "the kernel refuses bpf(2)"),
    ("hash_maps", "the kernel refuses hash maps"),
    ("lru_hash_maps", "the kernel refuses LRU hash maps"),
    ("libbpf", "no usable libbpf"),
    ("btf", "no usable BTF"),
    ("bpffs", "no bpf file system to pin in (mount -t bpf bpf /sys/fs/bpf)"),
    (MODULE, "this kernel has no conntrack"),
    (NETLINK_MODULE, "this kernel has no conntrack netlink to take existing flows in with"),
    (_SEED, f"no function {symbols.SEED} to take existing flows in with"),
)

# All but the kernel's own BTF
_RUNTIME_NEEDS = (
    *(row for row in _SHARED if row[0] != "btf"),
    ("bcc", "no bcc to read the kernel's headers with (python3-bpfcc)"),
    ("kernel_headers", "no headers of this kernel"),
)

# The maps, though no program: a process writes them
_NETLINK_NEEDS = (
    *(row for row in _SHARED if row[0] not in ("libbpf", "btf", _SEED)),
    ("conntrack_events", "the kernel sends no conntrack events"),
)


def _against_reading(facts: Facts) -> list[str]:
    if not _is(facts, "lockdown_allows_reads", NO):
        return []
    evidence = facts.probes["lockdown_allows_reads"].evidence
    what = "which forbids BPF programs to read kernel memory"
    return [f"kernel lockdown is confidentiality, {what} ({evidence})"]


def _refusals(facts: Facts, table: tuple[tuple[str, str], ...]) -> list[str]:
    return [
        f"{sentence} ({facts.probes[probe].evidence})"
        for probe, sentence in table
        if _is(facts, probe, NO)
    ]


def _locked(facts: Facts) -> str:
    return (
        f" under kernel lockdown={facts.lockdown}" if facts.lockdown not in (None, "none") else ""
    )


def _against_tracing(facts: Facts, functions: tuple[str, ...], allow_deadlock: bool) -> list[str]:
    found = _refusals(
        facts,
        (
            *_needs_of_seed(facts),
            (
                "tracing_programs",
                f"the kernel refuses tracing programs{_locked(facts)}",
            ),
            *((f"btf_function:{name}", f"{name} is not in BTF") for name in functions),
            *((f"symbol:{name}", f"no function {name} to attach to") for name in functions),
        ),
    )
    # BTF has the name of the source; the function that goes by it may be a copy with a suffix
    found += [
        f"the kernel calls {name} {real}, which only kprobes can be attached to"
        for name, real in ((name, facts.symbols.get(name)) for name in functions)
        if real not in (None, name)
    ]
    if _is(facts, f"symbol:{symbols.DETACH_DEADLOCK}", YES) and not allow_deadlock:
        found.append(
            f"the kernel has {symbols.DETACH_DEADLOCK}: detaching fentry programs can deadlock "
            "there (allow_fentry_deadlock lets you take that risk)"
        )
    return found


def _needs_of_seed(facts: Facts) -> tuple[tuple[str, str], ...]:
    """Existing flows are taken in by a kprobe, or where there are none, by fentry."""
    if not _is(facts, "fentry_seed", NO):
        return ()
    return (_KPROBES, ("fentry_seed", "existing flows cannot be taken in by fentry"))


def _against_kprobe(facts: Facts, functions: tuple[str, ...]) -> list[str]:
    return _refusals(
        facts,
        (
            _KPROBES,
            ("kprobe_programs", f"the kernel refuses kprobe programs{_locked(facts)}"),
            *((f"symbol:{name}", f"no function {name} to attach to") for name in functions),
        ),
    )
