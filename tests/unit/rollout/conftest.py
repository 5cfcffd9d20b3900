# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of files in a folder of the test; its systemd and accounts are a fake that records."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import accounts, managed_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader import access
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from ansible_collections.btfleet.conntrack.plugins.module_utils._rollout import present

from tests.unit.modules.conftest import call
from tests.unit.release.fake_host import FakeHost

__all__ = ["call"]

Put = Callable[..., None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The fake, in place of the machine's own accounts."""
    for name in ("units", "etc", "run"):
        (tmp_path / name).mkdir()
    made = FakeHost(str(tmp_path / "units"))
    for module in (poller_agent, accounts, managed_files, access):
        monkeypatch.setattr(module, "grp", made)
    for module in (accounts, managed_files):
        monkeypatch.setattr(module, "pwd", made)
    return made


@pytest.fixture
def host(tmp_path: Path, fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> present.Host:
    """A bare host, which is also the one of the modules."""
    store = Store(
        str(tmp_path / "etc" / "btfleet" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "state" / "wanted.json"),
        str(tmp_path / "run" / "btfleet" / "applied.json"),
    )
    made = present.Host(
        fake,
        Tracker(store, str(tmp_path / "bpf" / "pins"), str(tmp_path / "run" / "lock")),
        release.Layout(str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), fake.units),
        poller_agent.Layout(
            str(tmp_path / "etc" / "btfleet"),
            fake.units,
            str(tmp_path / "state"),
            str(tmp_path / "run" / "btfleet-agent"),
            str(tmp_path / "bpf" / "pins"),
        ),
    )
    monkeypatch.setattr(present.Host, "of", classmethod(lambda _cls, _run: made))
    for name in ("restore_point", "rollout_gate"):
        importlib.import_module(f"ansible_collections.btfleet.conntrack.plugins.modules.{name}")
    return made


@pytest.fixture
def put(host: present.Host) -> Put:
    """Unpacks a release; the newer the later it is put."""
    age = iter(range(1_000_000, 2_000_000))

    def unpack(name: str, unit: str = "[Unit]\n") -> None:
        folder = Path(host.releases.folder(name))
        for inner in ("bin", "units"):
            (folder / inner).mkdir(parents=True)
        (folder / "bin" / "btfleet").write_text(name)
        for one in (release.UNIT, *poller_agent.UNITS):
            (folder / "units" / one).write_text(f"{unit}# {name}\n")
        moment = next(age)
        os.utime(folder, (moment, moment))

    return unpack
