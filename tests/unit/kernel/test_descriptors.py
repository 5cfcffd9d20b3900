# SPDX-License-Identifier: GPL-3.0-or-later
"""A process takes as many descriptors as it may have, whatever systemd's soft limit is."""

from __future__ import annotations

import resource
import subprocess
import sys

_SCRIPT = """
import resource
from btfleet._kernel.backends.netlink import descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int({hard!r})))
print(descriptors.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(hard=hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(text) for text in done.stdout.split()] == [hard] * 3
