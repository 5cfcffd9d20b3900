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
def test_each_step_leaves_one_of_the_two(
    tracker: Tracker,  # noqa: F811
    spec: Spec,  # noqa: F811
    kills: bool,
) -> None:
    wanted = replace(spec, max_entries=4096)
    rounds = load_steps.rounds(tracker, spec, wanted, kinds=(kills,))
    met = [result.at for _fault, result in rounds]
    assert met[-1] is None
    assert set(STEPS) - set(met) == set()
