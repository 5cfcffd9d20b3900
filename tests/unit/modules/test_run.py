# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as Ansible runs them: results, check mode, and failures in one line."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import remote
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.bpf import bpf
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import (
    Store,
    write_atomically,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release as release_utils,
)

from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    bpffs_at,
    needs_bpf,
    tracker_map,
)
from tests.unit.modules.conftest import Call
from tests.unit.release.test_reach import Systemd
from tests.unit.release.test_unpack import GOOD, archive


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """What the modules take for the host's tracker; nothing can be loaded into it."""
    store = Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "agent" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    tracker = Tracker(store, str(tmp_path / "bpf" / "btfleet"), str(tmp_path / "run" / "lock"))
    for name in ("conntrack_object", "conntrack_info"):
        module = importlib.import_module(
            f"ansible_collections.btfleet.conntrack.plugins.modules.{name}"
        )
        monkeypatch.setattr(module, "Tracker", lambda: tracker)
    return tracker


@pytest.fixture
def offered(own_object: bytes) -> dict[str, str]:
    return {os.uname().machine: hashlib.sha256(own_object).hexdigest()}


@pytest.fixture
def sent(tmp_path: Path, own_object: bytes) -> str:
    """An object as the action plugin leaves it on the host."""
    path = tmp_path / "sent.o"
    path.write_bytes(own_object)
    return str(path)


# --- core_support_info ---------------------------------------------------------------------------


def test_support_is_a_result_and_never_a_failure(call: Call) -> None:
    result = call("core_support_info")
    assert "failed" not in result
    assert result["changed"] is False
    assert result["supported"] is (result["tier"] is not None)
    assert {"kernel", "arch", "lockdown", "libbpf", "btf", "probes"} <= set(result["facts"])


def test_support_of_a_tier_that_is_not_allowed(call: Call) -> None:
    result = call("core_support_info", tiers=["core/kprobe"])
    assert "the spec allows only core/kprobe" in result["reasons"]["core/fentry"]


def test_support_refuses_an_unknown_tier(call: Call) -> None:
    assert call("core_support_info", tiers=["core/magic"])["failed"]


# --- conntrack_object ----------------------------------------------------------------------------


@pytest.mark.usefixtures("tracker")
def test_an_object_that_is_not_there_is_asked_for(call: Call, offered: dict[str, str]) -> None:
    result = call("conntrack_object", state="installed", _objects=offered)
    assert result["needs_object"] is True
    assert result["changed"] is False
    assert result["arch"] in offered


def test_an_object_is_installed_once(
    call: Call, tracker: Tracker, offered: dict[str, str], sent: str
) -> None:
    arguments = {"state": "installed", "_objects": offered, "max_entries": 4096}
    first = call("conntrack_object", _object=sent, **arguments)
    assert first["changed"] is True
    assert first["diff"]["before"] == {
        "drift": [],
        "loaded": None,
        "object_file": None,
        "remote_config_keys": [],
        "spec_file": None,
    }
    assert first["diff"]["after"]["spec_file"] == first["spec"]
    assert first["spec"]["max_entries"] == 4096
    spec = tracker.store.read_spec()
    assert spec is not None
    assert spec.fingerprint == first["fingerprint"]
    second = call("conntrack_object", **arguments)
    assert (second["changed"], second["diff"]["before"]) == (False, second["diff"]["after"])


def test_check_mode_says_what_would_change_and_does_not(
    call: Call, offered: dict[str, str], sent: str, tmp_path: Path, tracker: Tracker
) -> None:
    arguments = {"state": "installed", "_objects": offered, "_object": sent}
    before = sorted(tmp_path.rglob("*"))
    result = call("conntrack_object", _check=True, **arguments)
    assert result["changed"] is True
    assert result["diff"]["after"]["object_file"] == result["spec"]["object_sha256"]
    assert sorted(tmp_path.rglob("*")) == before
    assert not tracker.store.exists()


def test_absent_takes_away_what_was_installed(
    call: Call, offered: dict[str, str], sent: str, tracker: Tracker
) -> None:
    call("conntrack_object", state="installed", _objects=offered, _object=sent)
    assert call("conntrack_object", _check=True, state="absent")["changed"] is True
    assert tracker.store.exists()
    assert call("conntrack_object", state="absent")["changed"] is True
    assert not tracker.store.exists()
    assert call("conntrack_object", state="absent")["changed"] is False
    assert call("conntrack_object", state="unloaded")["changed"] is False


def test_keys_for_remote_config_are_written_once_and_taken_away(
    call: Call, tracker: Tracker, offered: dict[str, str], sent: str
) -> None:
    arguments = {"state": "installed", "_objects": offered, "_object": sent}
    keys = ["CONNTRACK.udpv6_enabled", "AGENT.log_level"]
    check = call("conntrack_object", _check=True, remote_config_keys=keys, **arguments)
    assert check["diff"]["after"]["remote_config_keys"] == sorted(keys)
    assert not os.path.exists(tracker.store.remote_path)
    assert call("conntrack_object", remote_config_keys=keys, **arguments)["changed"] is True
    assert json.loads(Path(tracker.store.remote_path).read_text()) == {"keys": sorted(keys)}
    for again in ({"remote_config_keys": keys[::-1]}, {}):
        assert call("conntrack_object", **again, **arguments)["changed"] is False
    assert call("conntrack_object", remote_config_keys=[], **arguments)["changed"] is True
    assert not os.path.exists(tracker.store.remote_path)


def test_what_remote_config_wants_is_in_the_result_with_its_owner(
    call: Call, tracker: Tracker, offered: dict[str, str], sent: str
) -> None:
    path = "btfleet/1/CONNTRACK/edge/no-udp6"
    settings, owners = {"udpv6_enabled": False}, {"udpv6_enabled": path}
    request = remote.request_of(settings, owners)
    wanted = {"request": request, "settings": settings, "owners": owners}
    write_atomically(tracker.store.wanted_path, json.dumps(wanted).encode())
    arguments = {"state": "installed", "_objects": offered, "_object": sent}
    result = call("conntrack_object", remote_config_keys=["CONNTRACK.udpv6_enabled"], **arguments)
    assert result["spec"]["udpv6_enabled"] is True
    assert result["effective"] == {**result["spec"], "udpv6_enabled": False}
    assert result["owners"]["udpv6_enabled"] == path
    assert result["owners"]["tcpv6_enabled"] == "base"
    assert result["remote_config_refused"] is None
    refused = call("conntrack_object", remote_config_keys=[], **arguments)
    assert refused["effective"] == refused["spec"]
    assert "may not override on this host" in refused["remote_config_refused"]


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"remote_config_keys": ["CONNTRACK.btf_path"]},
            "remote_config_keys: 'CONNTRACK.btf_path'",
        ),
        ({"max_entries": 5}, "max_entries is 5, needed: a number from 1024 to 16777216"),
        ({"closed_entries": 2**30}, "closed_entries is 1073741824, needed"),
        ({"btf_path": "relative"}, "btf_path is "),
        ({"tiers": []}, "tiers is empty, needed"),
        ({"sha256": "e" * 64}, "the object has sha256"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    call: Call, offered: dict[str, str], arguments: dict[str, Any], message: str
) -> None:
    result = call("conntrack_object", state="installed", _objects=offered, **arguments)
    if "relative" in arguments.values():
        # Ansible makes paths absolute by itself on some versions
        assert result.get("failed") or result.get("needs_object")
        return
    assert result["failed"]
    assert result["msg"].startswith(message)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x7fELF truncated"])
def test_a_bad_object_on_the_host_is_refused_with_its_result(
    call: Call, tracker: Tracker, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.o").write_bytes(content)
    result = call(
        "conntrack_object", state="installed", src=str(tmp_path / "bad.o"), remote_src=True
    )
    assert result["failed"]
    assert result["load_result"] == "asset_read"
    assert tracker.store.objects() == []


@pytest.mark.usefixtures("tracker")
def test_a_missing_object_on_the_host_is_named(call: Call, tmp_path: Path) -> None:
    result = call("conntrack_object", src=str(tmp_path / "none.o"), remote_src=True)
    assert result["msg"].startswith(f"cannot read the object {tmp_path}/none.o (No such file")


@pytest.mark.usefixtures("tracker")
def test_no_object_for_this_architecture(call: Call) -> None:
    result = call("conntrack_object", _objects={"riscv64": "a" * 64})
    assert "(there is one for riscv64)" in result["msg"]


def test_a_load_without_bpffs_fails_in_check_mode_too(
    call: Call, offered: dict[str, str], sent: str, tracker: Tracker
) -> None:
    Path(tracker.folder).parent.mkdir()
    arguments = {"state": "loaded", "_objects": offered, "_object": sent}
    for check in (True, False):
        result = call("conntrack_object", _check=check, **arguments)
        assert result["msg"].startswith("no bpf file system at ")
        assert result["load_result"] == "loader"
    assert tracker.store.read_spec() is None


# --- conntrack_info ------------------------------------------------------------------------------


@pytest.fixture
def maps(tracker: Tracker, tmp_path: Path) -> Iterator[None]:
    with bpffs_at(tmp_path / "bpf"), tracker_map() as live, tracker_map() as closed:
        os.mkdir(tracker.folder)
        bpf.obj_pin(live, tracker.pins.path("conntrack_live"))
        bpf.obj_pin(closed, tracker.pins.path("conntrack_closed"))
        MASQUERADED.write(live)
        MASQUERADED_V6.write(closed)
        yield


@pytest.mark.usefixtures("tracker")
def test_a_host_without_a_tracker_is_a_result(call: Call) -> None:
    result = call("conntrack_info")
    assert (result["loaded"], result["healthy"], result["changed"]) == (False, False, False)
    assert (result["translations"], result["truncated"]) == ([], False)
    assert result["maps"] == {}


@needs_bpf
@pytest.mark.usefixtures("maps")
@pytest.mark.parametrize(
    ("arguments", "protocols", "truncated"),
    [
        ({}, ["tcp"], False),
        ({"states": ["closed"]}, ["udp"], False),
        ({"states": ["live", "closed"]}, ["tcp", "udp"], False),
        ({"states": ["live", "closed"], "limit": 1}, ["tcp"], True),
        ({"limit": 0}, [], True),
        ({"address": "fd00:0::2", "states": ["live", "closed"]}, ["udp"], False),
        ({"port": 80, "states": ["live", "closed"]}, ["tcp"], False),
        ({"protocol": "17", "states": ["live", "closed"]}, ["udp"], False),
        ({"netns": 1}, [], False),
    ],
)
def test_translations_are_filtered(
    call: Call, arguments: dict[str, Any], protocols: list[str], truncated: bool
) -> None:
    result = call("conntrack_info", **arguments)
    assert [row["protocol"] for row in result["translations"]] == protocols
    assert result["truncated"] is truncated


@needs_bpf
@pytest.mark.usefixtures("maps")
def test_counters_alone_read_no_map(call: Call) -> None:
    result = call("conntrack_info", translations=False)
    assert "translations" not in result
    assert result["maps"]["conntrack_live"] == {"max_entries": 1024}


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 65536}, "port is 65536"),
        ({"address": "host"}, "address is 'host'"),
        ({"protocol": "x"}, "protocol is 'x'"),
        ({"limit": -1}, "limit is -1"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    call: Call, arguments: dict[str, Any], message: str
) -> None:
    assert call("conntrack_info", **arguments)["msg"].startswith(message)


# --- release -------------------------------------------------------------------------------------


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> release_utils.Layout:
    """Where the module puts things here, with a systemd that only records."""
    (tmp_path / "units").mkdir()
    layout = release_utils.Layout(
        str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), str(tmp_path / "units")
    )
    systemd = Systemd(layout.units)
    module = importlib.import_module(
        "ansible_collections.btfleet.conntrack.plugins.modules.release"
    )
    monkeypatch.setattr(release_utils, "Layout", lambda: layout)
    monkeypatch.setattr(
        module.AnsibleModule, "run_command", lambda _self, command, **_: systemd(command)
    )
    return layout


@pytest.fixture
def packed(tmp_path: Path) -> dict[str, str]:
    content = archive(GOOD)
    (tmp_path / "sent.tar.gz").write_bytes(content)
    return {
        "_version": "1.0",
        "_sha256": hashlib.sha256(content).hexdigest(),
        "_archive": str(tmp_path / "sent.tar.gz"),
        "_archive_sha256": hashlib.sha256(content).hexdigest(),
    }


def test_a_release_is_asked_for_installed_and_then_left_alone(
    call: Call, layout: release_utils.Layout, packed: dict[str, str]
) -> None:
    without = {name: value for name, value in packed.items() if name != "_archive"}
    check = call("release", _check=True, **without)
    assert (check["changed"], os.path.exists(layout.root)) == (True, False)
    assert call("release", **without)["needs_archive"] is True
    first = call("release", **packed)
    assert first["changed"] is True
    assert first["current"] == f"1.0-{packed['_sha256'][:12]}"
    assert os.path.exists(layout.command)
    for arguments in (without, packed):
        again = call("release", **arguments)
        assert (again["changed"], again["releases"]) == (False, [first["current"]])
    assert call("release", _check=True, **without)["changed"] is False


def test_an_upgrade_is_done_once(
    call: Call, layout: release_utils.Layout, packed: dict[str, str]
) -> None:
    call("release", **packed)
    os.utime(layout.folder(f"1.0-{packed['_sha256'][:12]}"), (1, 1))
    newer = {**packed, "_version": "2.0"}
    assert call("release", **newer)["changed"] is True
    assert call("release", **newer)["changed"] is False
    assert call("release", **packed)["changed"] is True  # and back
    assert call("release", **packed)["changed"] is False


def test_an_archive_that_arrived_damaged_is_refused(
    call: Call, layout: release_utils.Layout, packed: dict[str, str]
) -> None:
    Path(packed["_archive"]).write_bytes(b"something else")
    assert call("release", **packed)["msg"].startswith("the archive arrived with sha256 ")
    assert not os.path.exists(layout.current)


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize(
    ("change", "message"),
    [({"_version": "../x"}, "version is '../x'"), ({"keep": -1}, "keep is -1, needed: 0 or more")],
)
def test_an_argument_that_cannot_be_is_refused(
    call: Call, packed: dict[str, str], change: dict[str, Any], message: str
) -> None:
    assert call("release", **{**packed, **change})["msg"].startswith(message)


def test_a_release_is_taken_away_once(
    call: Call, layout: release_utils.Layout, packed: dict[str, str]
) -> None:
    call("release", **packed)
    assert call("release", _check=True, state="absent")["changed"] is True
    assert os.path.exists(layout.root)
    assert call("release", state="absent")["changed"] is True
    assert not os.path.exists(layout.root)
    assert call("release", state="absent")["changed"] is False
