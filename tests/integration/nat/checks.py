# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge the dump: against conntrack, against the flows' own ends, and after a flush."""

from __future__ import annotations

import math
from typing import Any

from . import churn, comparison, netns, readings, records, state, traffic, wanted
from .flow import Flow, Key, key_of
from .report import Report


def compare(report: Report, dump_command: str, min_flows: int) -> None:
    """The live dump against two readings of conntrack around it."""
    expected = _groups_expected()
    witnesses = wanted.witnesses(records.read("flows-*"))
    before = readings.table()
    dumped = readings.dump(dump_command, "live")["live"]
    after = readings.table()
    result = comparison.compare(before.translated, dumped, after.translated)
    ends = comparison.judge(witnesses, result.agreed)

    report.nothing("missing in the dump", [str(flow) for flow in result.missing])
    report.nothing("extra in the dump", [str(flow) for flow in result.extra])
    report.nothing("printed twice", [str(flow) for flow in result.twice])
    report.nothing("flows made but not compared", ends.absent)
    report.nothing("translations other than the ends saw", ends.differing)
    report.nothing("untranslated flows in the dump", ends.unexpected)
    unseen = [
        f"{witness.kind}: {key}"
        for key, witness in witnesses.items()
        if not witness.translated and key not in before.untranslated & after.untranslated
    ]
    report.nothing("untranslated flows unknown to conntrack", unseen, ends.untranslated)
    counts = ends.counts | ends.untranslated
    report.nothing("kinds without a flow", [label for label in expected if not counts.get(label)])
    report.add(
        f"at least {min_flows} flows compared",
        len(result.agreed) >= max(min_flows, 1),
        {
            "flows": len(result.agreed),
            "dumped": len(dumped),
            "conntrack_before": len(before.translated),
            "conntrack_after": len(after.translated),
            "unsettled": len(result.unsettled),
            "namespaces": before.namespaces,
            "by_kind": ends.counts,
        },
    )
    state.save("last-live", sorted(result.agreed))


def _groups_expected() -> list[str]:
    """Groups that had to be compared and were not; those of the reuse only after it."""
    reused = state.load("reuse-runs", 0) > 0
    return [group.label for group in traffic.usable_groups() if reused or not group.kind.deleted]


def check_closed(report: Report, dump_command: str) -> None:
    """After a flush: live is what conntrack lists by now, and closed flows have their answer.

    A peer that goes on talking makes its flow anew (SCTP does, by itself), so the table need not
    be empty: but whatever is live has to be in it.
    """
    saved = state.load("last-live")
    last_live = {_flow(fields) for fields in saved or []}
    ours = {netns.inode(name) for name in (netns.ROOT, *netns.ours())}
    before = readings.table()
    dumped = [flow for flow in readings.dump(dump_command, "live")["live"] if flow.netns in ours]
    after = readings.table()
    result = comparison.compare(
        {flow for flow in before.translated if flow.netns in ours}, dumped, after.translated
    )
    closed = set(readings.dump(dump_command, "closed")["closed"])
    survivors = [str(flow) for flow in result.extra if flow in last_live]
    report.nothing("flows from before the flush that are live still", survivors)
    report.nothing(
        "live after the flush but not in conntrack", [str(flow) for flow in result.extra]
    )
    report.nothing(
        "made anew after the flush but not live",
        [str(flow) for flow in result.missing],
        {"made anew": len(result.agreed)},
    )
    gone = sorted(last_live - closed)
    report.nothing("closed flows without an answer", [str(flow) for flow in gone])
    report.add("there were live flows before the flush", bool(last_live), len(last_live))


def check_churn(
    report: Report, dump_command: str, since: float = 0.0, until: float = math.inf
) -> None:
    """Every tuple that the churn made in that time is known, with the translation its ends saw."""
    witnesses = wanted.witnesses(churn.log(since, until))
    both = readings.dump(dump_command, "all")
    # Where a tuple is both closed and live, the live one is the later.
    known: dict[Key, Flow] = {key_of(flow): flow for flow in [*both["closed"], *both["live"]]}
    ends = comparison.judge(witnesses, known.values())
    ends.counts.pop(comparison.OTHER, None)
    report.nothing("churned flows that were missed", ends.absent)
    report.nothing("churned flows with another translation", ends.differing)
    report.add("there were churned flows", bool(witnesses), ends.counts)


def _flow(fields: list[Any]) -> Flow:
    *first, orig, reply = fields
    return Flow._make([*first, wanted.side(orig), wanted.side(reply)])
