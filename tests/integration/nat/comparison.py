# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the dump with two readings of the kernel's own table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .flow import Flow, Key, Side, key_of

OTHER = "not made by this test"


@dataclass
class Comparison:
    """What agreed and what did not."""

    agreed: set[Flow] = field(default_factory=set)
    missing: list[Flow] = field(default_factory=list)
    extra: list[Flow] = field(default_factory=list)
    twice: list[Flow] = field(default_factory=list)
    unsettled: list[Flow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing missing, nothing extra, nothing printed twice."""
        return not (self.missing or self.extra or self.twice)


def compare(before: set[Flow], dumped: Iterable[Flow], after: set[Flow]) -> Comparison:
    """Judge only what both readings of the table agree on.

    Missing: in both readings, not in the dump. Extra: in the dump, in neither reading. A flow
    that is in one reading only came or went meanwhile: it is counted as unsettled.
    """
    printed = Counter(dumped)
    seen = set(printed)
    stable = before & after
    return Comparison(
        agreed=stable & seen,
        missing=sorted(stable - seen),
        extra=sorted(seen - (before | after)),
        twice=sorted(flow for flow, count in printed.items() if count > 1),
        unsettled=sorted(before ^ after),
    )


@dataclass(frozen=True)
class Witness:
    """What both ends of a flow saw themselves, without the kernel's table."""

    kind: str
    reply: Side | None
    translated: bool


@dataclass
class WitnessResult:
    """The witnessed flows, looked for in the compared ones."""

    counts: dict[str, int] = field(default_factory=dict)
    untranslated: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every witnessed flow is there, with the translation its ends saw."""
        return not (self.absent or self.differing or self.unexpected)


def judge(witnesses: Mapping[Key, Witness], flows: Iterable[Flow]) -> WitnessResult:
    """Check the flows against what their two ends saw, and count them by kind."""
    result = WitnessResult()
    known = {key_of(flow): flow for flow in flows}
    counts: Counter[str] = Counter()
    untranslated: Counter[str] = Counter()
    for key, witness in witnesses.items():
        flow = known.get(key)
        name = f"{witness.kind} {key.family} {key.protocol}"
        if not witness.translated:
            untranslated[name] += 1
            if flow is not None:
                result.unexpected.append(f"{witness.kind}: {flow}")
            continue
        counts[name] += flow is not None
        if flow is None:
            result.absent.append(f"{witness.kind}: {key}")
        elif witness.reply is not None and flow.reply != witness.reply:
            result.differing.append(f"{witness.kind}: {flow}; its ends saw {witness.reply}")
    strangers = len(known.keys() - witnesses.keys())
    if strangers:
        counts[OTHER] = strangers
    result.counts = dict(sorted(counts.items()))
    result.untranslated = dict(sorted(untranslated.items()))
    return result
