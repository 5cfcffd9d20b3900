# SPDX-License-Identifier: GPL-3.0-or-later
"""A load that fails at any of its steps, or is killed there, leaves the former tracker or the new.

Here for the tier netlink, on this very kernel; guests do the same for the tiers with programs.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.spec import Spec

from tests.integration.guest import load_steps
from tests.unit.kernel.nat_namespace import needs_nat
from tests.unit.kernel.test_netlink_tier import spec, tracker  # noqa: F401 fixtures

pytestmark = needs_nat

# Of a load that changes sizes, in their order: at the least these
STEPS = ["map_create", "copy", "obj_pin", "grant", "rename", "await_synced", "inspect"]


@pytest.mark.parametrize("kills", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize("nothing_before", [False, True], ids=["over-another", "over-nothing"])
def test_each_step_leaves_one_of_the_two(
    tracker: Tracker,  # noqa: F811
    spec: Spec,  # noqa: F811
    nothing_before: bool,
    kills: bool,
) -> None:
    former = None if nothing_before else spec
    wanted = replace(spec, max_entries=4096)
    met = [
        result.at for _fault, result in load_steps.rounds(tracker, former, wanted, kinds=(kills,))
    ]
    assert met[-1] is None
    missing = [step for step in STEPS if step not in met]
    assert missing == (["copy"] if nothing_before else [])
