# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet check`: the verdict on this kernel, with reasons."""

from __future__ import annotations

import argparse
import json

from btfleet._kernel.host.facts import gather
from btfleet._kernel.host.support import assess, hint
from btfleet._kernel.store import Store


def run(options: argparse.Namespace) -> int:
    """Exit code 0 if supported, else 1."""
    spec = Store().read_spec()
    facts = gather(spec.btf_path if spec else None)
    verdict = assess(facts, spec.tiers, spec.allow_fentry_deadlock) if spec else assess(facts)
    more = hint(facts, verdict)
    if options.json:
        print(json.dumps({**verdict.to_dict(), "hint": more, "facts": facts.to_dict()}))
    else:
        if verdict.supported:
            degraded = ", degraded" if verdict.degraded else ""
            print(f"supported: tier {verdict.tier}, {verdict.lifecycle}{degraded}")
        else:
            print("not supported")
        for tier, reasons in verdict.reasons.items():
            for reason in reasons:
                print(f"  not {tier}: {reason}")
        if more:
            print(f"  {more}")
    return 0 if verdict.supported else 1
