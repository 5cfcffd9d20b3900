# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet check`: the verdict on this kernel, with reasons."""

from __future__ import annotations

import argparse
import json
from typing import Iterator

from btfleet._kernel.host.facts import Facts, gather
from btfleet._kernel.host.support import Verdict, assess, hint, without_privileges
from btfleet._kernel.store import Store

NOT_SUPPORTED, NOT_KNOWN = 1, 4


def run(options: argparse.Namespace) -> int:
    """Exit code 0 if supported, 1 if not, 4 if nobody but root can tell."""
    spec = Store().read_spec()
    facts = gather(spec.btf_path if spec else None)
    seen = without_privileges(facts)

    def judge(facts: Facts) -> Verdict:
        return assess(facts, spec.tiers, spec.allow_fentry_deadlock) if spec else assess(facts)

    verdict = judge(seen or facts)
    known = seen is None or not verdict.supported
    more = hint(seen or facts, verdict)
    if options.json:
        data = {**verdict.to_dict(), "hint": more, "facts": facts.to_dict()}
        if not known:
            data.update(supported=None, summary=_not_known(facts, verdict))
        print(json.dumps({**data, "known": known}))
    else:
        print(_first_line(verdict) if known else _not_known(facts, verdict))
        for line in describe(verdict):
            print(f"  {line}")
        if more:
            print(f"  {more}")
    if not known:
        return NOT_KNOWN
    return 0 if verdict.supported else NOT_SUPPORTED


def describe(verdict: Verdict) -> Iterator[str]:
    """Say each reason once: against which tiers, or none where it stands against them all."""
    for reason, tiers in verdict.by_reason.items():
        everywhere = not verdict.supported and len(tiers) == len(verdict.reasons)
        yield reason if everywhere else f"not {', '.join(tiers)}: {reason}"


def _first_line(verdict: Verdict) -> str:
    if not verdict.supported:
        return "not supported"
    degraded = ", degraded" if verdict.degraded else ""
    return f"supported: tier {verdict.tier}, {verdict.lifecycle}{degraded}"


def _not_known(facts: Facts, verdict: Verdict) -> str:
    evidence = facts.probes["privileges"].evidence
    return (
        f"not known: only root can try bpf(2) ({evidence}); nothing that this user can see stands "
        f"against tier {verdict.tier}: run `sudo btfleet check`"
    )
