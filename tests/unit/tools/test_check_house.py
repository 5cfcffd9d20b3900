# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of the house finds what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_house

KERNEL = "plugins/module_utils/_kernel"
PACKAGE = "ansible_collections.btfleet.conntrack.plugins.module_utils._kernel"


def house(root: Path, files: dict[str, str]) -> list[str]:
    """The problems of a checkout that consists of these files."""
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return list(check_house.problems(check_house.read_imports(root)))


def test_this_checkout_is_in_order(checkout: Path) -> None:
    imports = check_house.read_imports(checkout)
    assert f"{KERNEL}/bpf/bpf.py" in imports[f"{KERNEL}/conntrack/table.py"]
    assert list(check_house.problems(imports)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ..loader import load",
        "from ..loader.load import Tracker",
        f"from {PACKAGE}.loader import load",
        f"import {PACKAGE}.loader.load",
        "from btfleet._kernel.loader.load import Tracker",
        "def late():\n    from ..loader import load",
    ],
)
def test_a_lower_room_that_imports_a_higher_one(tmp_path: Path, source: str) -> None:
    low, high = f"{KERNEL}/bpf/bpf.py", f"{KERNEL}/loader/load.py"
    assert house(tmp_path, {high: "", low: source}) == [
        f"{low} imports {high}, but {KERNEL}/loader is not below {KERNEL}/bpf"
    ]


def test_rooms_on_one_floor_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = f"{KERNEL}/host/facts.py", f"{KERNEL}/conntrack/netns.py"
    assert house(tmp_path, {one: "from ..conntrack import netns", other: ""}) == [
        f"{one} imports {other}, but {KERNEL}/conntrack is not below {KERNEL}/host"
    ]


def test_a_higher_room_imports_a_lower_one_and_its_own(tmp_path: Path) -> None:
    files = {
        f"{KERNEL}/bpf/bpf.py": "",
        f"{KERNEL}/backends/seed.py": "from ..bpf import bpf\nfrom .netlink import pulse",
        f"{KERNEL}/backends/netlink/pulse.py": "from ...bpf import bpf\nfrom .. import seed",
        "agent/btfleet/cli.py": "from btfleet._kernel.backends import seed",
    }
    assert house(tmp_path, files) == []


def test_a_file_in_no_room(tmp_path: Path) -> None:
    (problem,) = house(tmp_path, {"plugins/module_utils/loose.py": ""})
    assert problem.startswith("plugins/module_utils/loose.py is in no room")


def test_what_reads_reaches_nothing_that_loads(tmp_path: Path) -> None:
    reader, between = "agent/btfleet/conntrack_command.py", "plugins/module_utils/_config/manage.py"
    loads = f"{KERNEL}/loader/load.py"
    files = {
        reader: "from btfleet._config import manage",
        between: "from .._kernel.loader.load import Tracker",
        loads: "",
    }
    assert house(tmp_path, files) == [
        f"{reader} only reads, but it reaches what loads: {reader} -> {between} -> {loads}"
    ]
