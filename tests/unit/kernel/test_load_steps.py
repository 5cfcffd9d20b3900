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
from tests.unit.kernel import test_netlink_tier
from tests.unit.kernel.nat_namespace import needs_nat

pytestmark = needs_nat

tracker, spec = test_netlink_tier.tracker, test_netlink_tier.spec

# Of a load that changes sizes, in their order: at the least these
STEPS = ["map_create", "copy", "obj_pin", "grant", "rename", "await_synced", "inspect"]


@pytest.mark.parametrize("kills", [False, True], ids=["error", "kill"])
def test_each_step_leaves_one_of_the_two(tracker: Tracker, spec: Spec, kills: bool) -> None:
    wanted = replace(spec, max_entries=4096)
    rounds = load_steps.rounds(tracker, spec, wanted, kinds=(kills,))
    met = [result.at for _fault, result in rounds]
    assert met[-1] is None
    assert set(STEPS) - set(met) == set()
