# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a module in this process; what it answers."""

    def run(name: str, _check: bool = False, **arguments: Any) -> dict[str, Any]:
        module = importlib.import_module(
            f"ansible_collections.btfleet.conntrack.plugins.modules.{name}"
        )
        given = patch_module_args({**arguments, "_ansible_check_mode": _check})
        with given, pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        if result.get("failed"):
            assert len(result["msg"].splitlines()) == 1
        return result

    return run
