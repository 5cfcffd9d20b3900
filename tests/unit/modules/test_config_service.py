# SPDX-License-Identifier: GPL-3.0-or-later
"""The module config_service from a bare host to a bare host; its action plugin."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.action import config_service as action
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import config_service
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import accounts, managed_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release as release_utils,
)

from tests.unit.kernel_access import needs_root
from tests.unit.modules.conftest import Call
from tests.unit.release.fake_host import GID, FakeHost
from tests.unit.release.test_unpack import Member, archive

UNIT = "btfleet-config-service.service"
BOOT = "btfleet-conntracker.service"
KEY = "-----BEGIN PRIVATE KEY-----\nvery-secret\n"


def members(version: str, unit: str = "") -> list[Member]:
    top = f"btfleet-{version}"
    return [
        (f"{top}/bin/btfleet", b"#!/usr/bin/python3\n", {"mode": 0o755}),
        (f"{top}/lib/btfleet/__init__.py", b"", {}),
        (f"{top}/units/{BOOT}", b"[Unit]\n", {}),
        (f"{top}/units/{UNIT}", f"[Unit]\n{unit}".encode(), {}),
    ]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A bare host. Its systemd, accounts and folders are the module's."""
    (tmp_path / "units").mkdir()
    host = FakeHost(str(tmp_path / "units"))
    releases = release_utils.Layout(
        str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), host.units
    )
    layout = config_service.Layout(
        str(tmp_path / "etc" / "btfleet"),
        host.units,
        str(tmp_path / "state"),
        str(tmp_path / "run"),
    )
    monkeypatch.setattr(release_utils, "Layout", lambda: releases)
    monkeypatch.setattr(config_service, "Layout", lambda: layout)
    for module in (config_service, accounts, managed_files):
        monkeypatch.setattr(module, "grp", host)
    for module in (accounts, managed_files):
        monkeypatch.setattr(module, "pwd", host)
    for name in ("config_service", "release"):
        module = importlib.import_module(
            f"ansible_collections.btfleet.conntrack.plugins.modules.{name}"
        )
        monkeypatch.setattr(module.AnsibleModule, "run_command", lambda _self, it, **_: host(it))
    return host


def sent(tmp_path: Path, version: str = "1.0", unit: str = "") -> dict[str, str]:
    """What the action plugin says of an archive that it has sent."""
    content = archive(members(version, unit))
    (tmp_path / "sent.tar.gz").write_bytes(content)
    return {
        "_version": version,
        "_sha256": "ab" * 32,
        "_archive": str(tmp_path / "sent.tar.gz"),
        "_archive_sha256": hashlib.sha256(content).hexdigest(),
    }


@pytest.fixture
def wish(tmp_path: Path) -> dict[str, Any]:
    return {
        "repository": "/srv/published",
        "_certificate": "-----BEGIN CERTIFICATE-----\n",
        "_key": KEY,
        "_director_root": '{"signed": 1}',
        "_config_root": '{"signed": 2}',
        "_tokens": '{"hosts": {}, "operators": {}}\n',
        "interpreter": sys.executable,
        **sent(tmp_path),
    }


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- the module ----------------------------------------------------------------------------------


@needs_root
def test_a_bare_host_gets_a_service_that_runs_and_no_boot_unit(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    result = call("config_service", **wish)
    assert (result["changed"], result["restarted"]) == (True, False)
    etc = tmp_path / "etc" / "btfleet"
    settings = json.loads((etc / "config-service.json").read_text())
    assert settings["repository"] == "/srv/published"
    for path in (settings["tls"]["key"], settings["tokens"], settings["roots"]["director"]):
        found = Path(path).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, GID, 0o640)
    assert host.active == {UNIT}
    assert host.enabled == {UNIT}
    assert not (tmp_path / "units" / BOOT).exists()


@needs_root
def test_a_second_run_changes_nothing(call: Call, host: FakeHost, wish: dict[str, Any]) -> None:
    call("config_service", **wish)
    host.calls.clear()
    result = call("config_service", **wish)
    assert (result["changed"], host.calls) == (False, [])


@needs_root
def test_a_dry_run_says_the_same_and_touches_nothing(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    before = everything(tmp_path)
    result = call("config_service", _check=True, **wish)
    assert result["changed"]
    assert (everything(tmp_path), host.calls) == (before, [])


@needs_root
@pytest.mark.parametrize("option", ["_tokens", "_certificate", "_key"])
def test_what_the_service_reads_anew_needs_no_restart(
    call: Call, host: FakeHost, wish: dict[str, Any], option: str
) -> None:
    call("config_service", **wish)
    host.calls.clear()
    result = call("config_service", **{**wish, option: "another one"})
    assert (result["changed"], result["restarted"], host.calls) == (True, False, [])


@needs_root
def test_other_settings_restart_it(call: Call, host: FakeHost, wish: dict[str, Any]) -> None:
    call("config_service", **wish)
    host.calls.clear()
    result = call("config_service", **wish, listen="[::]:9443")
    assert (result["changed"], result["restarted"]) == (True, True)
    assert host.calls == [f"systemctl restart {UNIT}"]


@needs_root
def test_a_restart_that_an_earlier_run_owed_is_made_up_for(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    call("config_service", **wish)
    host.failing = "restart"
    assert call("config_service", **wish, listen="[::]:9443")["failed"]
    host.failing = None
    result = call("config_service", **wish, listen="[::]:9443")
    assert (result["changed"], result["restarted"]) == (True, True)
    assert not call("config_service", **wish, listen="[::]:9443")["changed"]


@needs_root
@pytest.mark.usefixtures("host")
def test_an_optional_file_goes_when_it_is_no_longer_given(
    call: Call, wish: dict[str, Any], tmp_path: Path
) -> None:
    call("config_service", **wish, _client_ca="-----BEGIN CERTIFICATE-----\n")
    path = tmp_path / "etc" / "btfleet" / "config-service" / "client-ca.pem"
    assert path.exists()
    assert call("config_service", **wish)["changed"]
    assert not path.exists()
    settings = json.loads((tmp_path / "etc" / "btfleet" / "config-service.json").read_text())
    assert "client_ca" not in settings["tls"]


@needs_root
@pytest.mark.parametrize("option", ["_key", "_tokens", "_director_root"])
def test_what_is_missing_is_said_before_anything_is_sent(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path, option: str
) -> None:
    before = everything(tmp_path)
    del wish[option], wish["_archive"]
    result = call("config_service", **wish)
    assert "is not on the host, needed" in result["msg"]
    assert (everything(tmp_path), host.calls) == (before, [])


@needs_root
@pytest.mark.usefixtures("host")
def test_no_diff_shows_the_key(call: Call, wish: dict[str, Any]) -> None:
    results = [
        call("config_service", **wish),
        call("config_service", **{**wish, "_key": KEY + "other"}),
    ]
    text = json.dumps([result["diff"] for result in results])
    assert hashlib.sha256(KEY.encode()).hexdigest() not in text
    assert "very-secret" not in json.dumps(results)
    assert results[1]["diff"]["after"]["files"]["key.pem"]["digest"] == "another one, not shown"


@needs_root
def test_removal_leaves_nothing(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    before = everything(tmp_path)
    call("config_service", **wish)
    assert call("config_service", state="absent")["changed"]
    assert everything(tmp_path) - {"etc", "run", "bin"} == before
    assert host.users == {"root": 0}
    assert not call("config_service", state="absent")["changed"]


@needs_root
def test_each_leaves_the_release_to_the_other(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    offer = {name: wish[name] for name in wish if name.startswith(("_ver", "_sha", "_arch"))}
    call("release", dependencies=True, interpreter=sys.executable, **offer)
    call("config_service", **wish)
    current = tmp_path / "opt" / "current"
    assert call("release", state="absent")["changed"]
    assert current.exists()
    assert host.active == {UNIT}
    assert not call("release", state="absent")["changed"]
    call("release", dependencies=True, interpreter=sys.executable, **offer)
    assert call("config_service", state="absent")["changed"]
    assert current.exists()
    assert host.active == {BOOT}


# --- the action plugin ---------------------------------------------------------------------------


def test_tokens_are_hashed_before_they_leave_the_control_node() -> None:
    one, two = "a" * 20, "b" * 20
    expected = [hashlib.sha256(token.encode()).hexdigest() for token in (one, two)]
    assert action.hashed({"edge1": one, "edge2": [one + "\n", two]}, "tokens") == {
        "edge1": expected[:1],
        "edge2": sorted(expected),
    }


@pytest.mark.parametrize("tokens", ["text", ["list"], {"edge1": "short"}, {"edge1": ["", "x"]}])
def test_tokens_that_cannot_be_good_are_refused_without_being_shown(tokens: Any) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        action.hashed(tokens, "tokens")
    assert "needed" in str(caught.value)
    assert "short" not in str(caught.value)
