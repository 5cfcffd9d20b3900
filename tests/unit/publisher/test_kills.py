# SPDX-License-Identifier: GPL-3.0-or-later
"""A publisher that is killed at any step leaves the old generation or the new, never a mixture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.kill_rounds import KILL_ROUNDS

KINDS = ("create", "publish", "rotate")
# Of each kind; all steps: python -m tests.unit.publisher.killed_publisher FOLDER KIND 1000
KILLS = KILL_ROUNDS // len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_and_the_next_run_goes_on(
    tmp_path: Path, checkout: Path, kind: str
) -> None:
    module = "tests.unit.publisher.killed_publisher"
    paths = [checkout, checkout / "build" / "collections"]
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path), kind, str(KILLS)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, old, new = map(int, done.stdout.split())
    assert min(10, KILLS) <= killed <= KILLS  # there may be fewer steps
    assert old > 0
    assert new > 0
    assert old + new == killed
