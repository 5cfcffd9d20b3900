# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit tests of an ordinary user: what needs root is left out, and the last lines say so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_FILE = "tests/unit/kernel/test_table.py"


@pytest.mark.parametrize(("only", "code"), [([], 0), (["-m", "needs_root"], 5)])
def test_what_needs_root_is_left_out_and_named(
    checkout: Path, tmp_path: Path, only: list[str], code: int
) -> None:
    # In a user namespace of its own without a mapping, root is nobody
    nobody = ["unshare", "--user"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [
            *nobody,
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            f"cache_dir={tmp_path}",
            *only,
            _FILE,
        ],
        cwd=checkout,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code, done.stdout
    assert "skipped" not in done.stdout
    assert re.search(
        r"^NOT RUN: [1-9]\d* tests: they need root: sudo tools/unit.sh$", done.stdout, re.MULTILINE
    )


def test_what_was_left_out_by_the_user_is_not_named(checkout: Path, tmp_path: Path) -> None:
    others = ["-m", "not needs_root"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={tmp_path}", *others, _FILE],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "NOT RUN" not in done.stdout
