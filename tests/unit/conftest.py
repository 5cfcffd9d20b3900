# SPDX-License-Identifier: GPL-3.0-or-later
"""Unit tests import the agent as `btfleet` and the collection by its full name.

Both names lead to this checkout, through links that `make venv` puts there. The kernel library has
two names and is loaded once for each: test it as `btfleet._kernel`, and compare no classes across.
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parent.parent.parent

# What tools/setup.sh installs. An ordinary user's PATH lacks the system's folders
TOOLS = ("bpftool", "conntrack", "gcc", "ip", "nft")
_FOLDERS = (str(CHECKOUT / "build" / "tools"), "/usr/sbin", "/sbin")
os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])

# Tests that were left out, by the reason
_left_out = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Say what to do where an import error would puzzle."""
    settings.register_profile("unit", deadline=None, max_examples=100)  # no test asserts timing
    settings.load_profile("unit")
    collection = "build/collections/ansible_collections/btfleet/conntrack"
    for link in ("agent/btfleet/_kernel", "agent/btfleet/_config", collection):
        if not (CHECKOUT / link).is_symlink():
            pytest.exit(f"{link} is missing: run `make venv` first", returncode=4)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.exit(f"{', '.join(missing)} not found: run `make setup` first", returncode=4)
    config.addinivalue_line(
        "markers", 'needs_root("bpf"): needs root, and with "bpf" a kernel that allows it bpf(2)'
    )
    config.stash[_left_out] = {}


# After pytest's own options, so that what `-m` has left out is not counted
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs root where we are not root, or where root may do too little."""
    why = why_no_root(os.geteuid()), why_no_bpf(os.geteuid())
    kept, left = [], []
    for item in items:
        needs = [marker.args for marker in item.iter_markers("needs_root")]
        reason = why[("bpf",) in needs] if needs else ""
        if reason:
            left.append(item)
            config.stash[_left_out][reason] = config.stash[_left_out].get(reason, 0) + 1
        else:
            kept.append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and how to run it."""
    for reason, count in terminalreporter.config.stash[_left_out].items():
        terminalreporter.write_line(f"NOT RUN: {count} tests: {reason}", yellow=True)


def why_no_root(uid: int) -> str:
    """Return why tests that need root cannot run, empty if they can."""
    return "they need root: sudo tools/unit.sh" if uid else ""


def why_no_bpf(uid: int) -> str:
    """Return why tests that use bpf(2) cannot run, empty if they can."""
    if uid:
        return why_no_root(uid)
    from btfleet._kernel.bpf import bpf  # noqa: PLC0415 not there before `make venv`

    try:
        os.close(bpf.map_create(bpf.HASH, 4, 8, 8))
    except OSError as exc:
        return f"the kernel refuses bpf(2) here ({exc.strerror}): run them on a host, as root"
    return ""


@pytest.fixture
def checkout() -> Path:
    """The root of the checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def objects() -> dict[str, Path]:
    """The built object of each architecture."""
    folder = CHECKOUT / "build" / "bpf"
    found = {path.name[len("conntrack-") : -len(".bpf.o")]: path for path in folder.glob("*.bpf.o")}
    if set(found) != {"x86_64", "aarch64"}:
        pytest.fail(f"{folder} lacks the object: run `make object` first")
    return found


@pytest.fixture(scope="session")
def own_object(objects: dict[str, Path]) -> bytes:
    """The object for this machine."""
    return objects[platform.machine()].read_bytes()
