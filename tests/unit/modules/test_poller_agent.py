# SPDX-License-Identifier: GPL-3.0-or-later
"""The module poller_agent from a bare host to a bare host, over all that can be wrong between."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import poller_agent
from ansible_collections.btfleet.conntrack.plugins.module_utils._host import accounts, managed_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader import access
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import (
    release as release_utils,
)

from tests.unit.kernel_access import needs_root
from tests.unit.modules.conftest import Call
from tests.unit.release.fake_host import GID, FakeHost
from tests.unit.release.test_agent_files import CA, ROOT, TOKEN
from tests.unit.release.test_unpack import Member, archive

pytestmark = needs_root

UNITS = ("btfleet-agent.service", "btfleet-apply.path", "btfleet-apply.service")
BOOT = "btfleet-conntracker.service"
# Stands for the agent's own check, which has tests of its own
CHECK = b"""\
class SettingsError(Exception): pass
def parse(raw, name):
    import json
    if ":" not in json.loads(raw)["service"]:
        raise SettingsError(f"{name}: service is wrong")
"""


def members(version: str, unit: str = "") -> list[Member]:
    top = f"btfleet-{version}"
    units: list[Member] = [
        (f"{top}/units/{name}", f"[Unit]\n{unit}".encode(), {}) for name in (BOOT, *UNITS)
    ]
    return [
        (f"{top}/bin/btfleet", b"#!/usr/bin/python3\n", {"mode": 0o755}),
        (f"{top}/lib/btfleet/__init__.py", b"", {}),
        (f"{top}/lib/btfleet/poller/__init__.py", b"", {}),
        (f"{top}/lib/btfleet/poller/errors.py", CHECK, {}),
        (f"{top}/lib/btfleet/poller/settings.py", b"from btfleet.poller.errors import *", {}),
        *units,
    ]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A bare host. Its systemd, accounts and folders are the module's."""
    for name in ("units", "etc", "run"):
        (tmp_path / name).mkdir()
    host = FakeHost(str(tmp_path / "units"))
    releases = release_utils.Layout(
        str(tmp_path / "opt"), str(tmp_path / "bin" / "btfleet"), host.units
    )
    layout = poller_agent.Layout(
        str(tmp_path / "etc" / "btfleet"),
        host.units,
        str(tmp_path / "state"),
        str(tmp_path / "run" / "btfleet-agent"),
        str(tmp_path / "pins"),
    )
    monkeypatch.setattr(release_utils, "Layout", lambda: releases)
    monkeypatch.setattr(poller_agent, "Layout", lambda: layout)
    for module in (poller_agent, accounts, managed_files, access):
        monkeypatch.setattr(module, "grp", host)
    for module in (accounts, managed_files):
        monkeypatch.setattr(module, "pwd", host)
    for name in ("poller_agent", "release"):
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
        "host": "edge1",
        "service": "config:8443",
        "token": TOKEN,
        "_ca": CA,
        "_director_root": ROOT,
        "interpreter": sys.executable,
        **sent(tmp_path),
    }


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def access_of(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o7777


# --- installing ----------------------------------------------------------------------------------


def test_a_tree_is_asked_for_by_the_python_of_the_host(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    before = everything(tmp_path)
    del wish["_archive"]
    answer = call("poller_agent", **wish)
    assert (answer["needs_archive"], answer["changed"]) == (True, False)
    assert answer["python"]["tag"] == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert (everything(tmp_path), host.calls) == (before, [])


def test_a_bare_host_gets_it_all(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    result = call("poller_agent", **wish)
    assert (result["changed"], result["restarted"]) == (True, False)
    etc = tmp_path / "etc" / "btfleet"
    assert json.loads((etc / "agent.json").read_text()) == {
        "host": "edge1",
        "service": "config:8443",
    }
    assert (etc / "token").read_text() == TOKEN + "\n"
    for name in ("agent.json", "token", "ca.pem", "director-root.json"):
        assert access_of(etc / name) == (0, GID, 0o640)
    assert host.active == host.enabled == {BOOT, "btfleet-apply.path", "btfleet-agent.service"}
    assert (tmp_path / "bin" / "btfleet").is_file()
    assert not (tmp_path / "run" / "btfleet-agent.restart").exists()
    assert host.calls.index("groupadd --system btfleet") < host.calls.index(
        "systemctl start btfleet-agent.service"
    )
    assert [line for line in host.calls if line.startswith("useradd")] == [
        (
            "useradd --system --gid btfleet --no-create-home --home-dir /nonexistent "
            "--shell /usr/sbin/nologin btfleet"
        )
    ]


def test_a_second_run_changes_nothing(call: Call, host: FakeHost, wish: dict[str, Any]) -> None:
    call("poller_agent", **wish)
    host.calls.clear()
    del wish["_archive"]
    for kept in ((), ("token", "_ca", "_director_root")):
        for name in kept:
            del wish[name]
        again = call("poller_agent", **wish)
        assert (again["changed"], again["restarted"]) == (False, False)
        assert again["diff"]["before"] == again["diff"]["after"]
    assert host.calls == []


def test_a_dry_run_on_a_bare_host_says_all_and_does_nothing(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    before = everything(tmp_path)
    del wish["_archive"]
    result = call("poller_agent", _check=True, **wish)
    assert result["changed"] is True
    after = result["diff"]["after"]
    assert after["account"] is True
    assert after["files"]["agent.json"]["content"]["service"] == "config:8443"
    assert after["units"]["btfleet-agent.service"]["active"] is True
    assert (everything(tmp_path), host.calls) == (before, [])


def test_the_token_is_nowhere_in_the_answer(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    other = "another-token-0123456789"
    hashes = [hashlib.sha256(token.encode() + b"\n").hexdigest() for token in (TOKEN, other)]
    for token in (TOKEN, other):
        text = json.dumps(call("poller_agent", **{**wish, "token": token}))
        assert not any(secret in text for secret in (TOKEN, other, *hashes))
    assert host.users


# --- changes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({"token": "another-token-0123456789"}, False),
        ({"_ca": CA + CA}, False),
        ({"_director_root": ROOT + " "}, False),
        ({"log_level": "debug"}, True),
        ({"service": "other:8443"}, True),
        ({"labels": {"site": "ber1"}}, True),
    ],
)
def test_the_agent_is_restarted_for_what_it_does_not_read_by_itself(
    call: Call, host: FakeHost, wish: dict[str, Any], change: dict[str, Any], restarted: bool
) -> None:
    call("poller_agent", **wish)
    host.calls.clear()
    check = call("poller_agent", _check=True, **{**wish, **change})
    assert (check["changed"], check["restarted"], host.calls) == (True, restarted, [])
    result = call("poller_agent", **{**wish, **change})
    assert (result["changed"], result["restarted"]) == (True, restarted)
    assert host.calls == (["systemctl restart btfleet-agent.service"] if restarted else [])
    assert call("poller_agent", **{**wish, **change})["changed"] is False


def test_another_token_shows_in_the_diff_as_such(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    call("poller_agent", **wish)
    diff = call("poller_agent", **{**wish, "token": "another-token-0123456789"})["diff"]
    assert diff["before"]["files"]["token"]["digest"] == "not shown"
    assert diff["after"]["files"]["token"]["digest"] == "another one, not shown"
    assert host.users


def test_another_release_is_switched_to_and_restarts_the_agent(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    first = call("poller_agent", **wish)["current"]
    host.calls.clear()
    newer = {**wish, **sent(tmp_path, "2.0", "Description=new\n")}
    result = call("poller_agent", **newer)
    assert (result["changed"], result["restarted"]) == (True, True)
    assert set(result["releases"]) == {first, result["current"]}
    assert host.calls == [
        "systemctl daemon-reload",  # the boot unit
        "systemctl daemon-reload",
        "systemctl restart btfleet-agent.service",
    ]
    assert call("poller_agent", **newer)["changed"] is False


def damage_mode(tmp_path: Path, _host: FakeHost) -> None:
    os.chmod(tmp_path / "etc" / "btfleet" / "token", 0o644)


def damage_group(tmp_path: Path, _host: FakeHost) -> None:
    os.chown(tmp_path / "etc" / "btfleet" / "ca.pem", 0, 0)


def damage_file(tmp_path: Path, _host: FakeHost) -> None:
    (tmp_path / "etc" / "btfleet" / "director-root.json").unlink()


def damage_unit(tmp_path: Path, _host: FakeHost) -> None:
    (tmp_path / "units" / "btfleet-apply.service").write_text("[Unit]\nmine\n")


def stop(_tmp_path: Path, host: FakeHost) -> None:
    host.active.discard("btfleet-agent.service")


def disable(_tmp_path: Path, host: FakeHost) -> None:
    host.enabled.discard("btfleet-apply.path")


def take_account(_tmp_path: Path, host: FakeHost) -> None:
    del host.users["btfleet"]


def kill_before_the_restart(tmp_path: Path, _host: FakeHost) -> None:
    (tmp_path / "run" / "btfleet-agent.restart").touch()


@pytest.mark.parametrize(
    "damage",
    [
        *(damage_mode, damage_group, damage_file, damage_unit, stop, disable, take_account),
        kill_before_the_restart,
    ],
)
def test_what_somebody_changed_is_put_right_once(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path, damage: Any
) -> None:
    call("poller_agent", **wish)
    before = call("poller_agent", _check=True, **wish)["diff"]["before"]
    damage(tmp_path, host)
    assert call("poller_agent", _check=True, **wish)["changed"] is True
    assert call("poller_agent", **wish)["changed"] is True
    again = call("poller_agent", **wish)
    assert (again["changed"], again["diff"]["after"]) == (False, before)


def test_a_run_that_is_killed_before_the_restart_is_made_up_for(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    call("poller_agent", **wish)
    host.failing = "restart"
    change = {**wish, "log_level": "debug"}
    assert "systemctl restart btfleet-agent.service failed" in call("poller_agent", **change)["msg"]
    host.failing = None
    host.calls.clear()
    assert call("poller_agent", **change)["restarted"] is True
    assert host.calls == ["systemctl restart btfleet-agent.service"]
    assert call("poller_agent", **change)["changed"] is False


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": None}, "service is missing"),
        ({"token": None}, "token is not on the host, needed: the host's token (token)"),
        ({"_ca": None}, "ca.pem is not on the host, needed: the CA"),
        ({"_director_root": None}, "director-root.json is not on the host, needed: the first root"),
        ({"token": "short"}, "token has 5 characters"),
        ({"_ca": "nonsense"}, "ca holds no PEM certificate"),
        ({"_director_root": "{}"}, "director_root is no TUF root"),
        ({"interpreter": "/no/python"}, "/no/python is not there"),
        ({"keep": -1}, "keep is -1, needed: 0 or more"),
        ({"_version": "../x"}, "version is '../x'"),
        ({"_archive_sha256": "cd" * 32}, "the archive arrived with sha256 "),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_host_alone(
    call: Call,
    host: FakeHost,
    wish: dict[str, Any],
    tmp_path: Path,
    change: dict[str, Any],
    message: str,
) -> None:
    before = everything(tmp_path)
    arguments = {name: value for name, value in {**wish, **change}.items() if value is not None}
    assert call("poller_agent", **arguments)["msg"].startswith(message)
    assert (everything(tmp_path), host.calls) == (before, [])


def test_settings_that_the_agent_does_not_take_are_refused_before_the_switch(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    message = call("poller_agent", **{**wish, "service": "no-port"})["msg"]
    assert message == "agent.json: service is wrong"
    assert not (tmp_path / "opt" / "current").exists()
    assert host.calls == []


def test_a_release_without_the_agent_is_refused(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    content = archive([one for one in members("1.0") if "btfleet-agent" not in one[0]])
    (tmp_path / "sent.tar.gz").write_bytes(content)
    wish["_archive_sha256"] = hashlib.sha256(content).hexdigest()
    assert "has no btfleet-agent.service" in call("poller_agent", **wish)["msg"]
    assert host.calls == []


def test_a_user_of_that_name_with_another_group_is_named(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    host.users["btfleet"] = 100
    host.groups["btfleet"] = GID
    assert "is there with another primary group" in call("poller_agent", **wish)["msg"]


@pytest.mark.parametrize("command", ["groupadd", "useradd"])
def test_an_account_that_cannot_be_made_is_one_line(
    call: Call, host: FakeHost, wish: dict[str, Any], command: str
) -> None:
    host.failing = command
    assert call("poller_agent", **wish)["msg"].startswith(f"{command} failed ({command} says no)")


# --- the pins ------------------------------------------------------------------------------------


def test_the_pins_are_opened_to_the_agent_and_closed_after_it(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    pins = tmp_path / "pins"
    pins.mkdir(mode=0o700)
    (pins / "conntrack_live").touch(0o600)
    call("poller_agent", **wish)
    assert access_of(pins) == (0, GID, 0o750)
    assert access_of(pins / "conntrack_live") == (0, GID, 0o640)
    assert call("poller_agent", **wish)["changed"] is False
    call("poller_agent", state="absent")
    assert access_of(pins) == (0, 0, 0o700)
    assert access_of(pins / "conntrack_live") == (0, 0, 0o600)
    assert "btfleet" not in host.groups


# --- removal -------------------------------------------------------------------------------------


def test_removal_leaves_nothing_but_the_release(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    call("poller_agent", **wish)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "wanted.json").write_text("{}")
    (tmp_path / "state" / "state.db").write_text("")
    (tmp_path / "run" / "btfleet-agent").mkdir()
    host.calls.clear()
    assert call("poller_agent", _check=True, state="absent")["changed"] is True
    assert host.calls == []
    assert call("poller_agent", state="absent")["changed"] is True
    # the base comes back before the unit that brings it goes, and after the agent
    names = ["stop btfleet-agent.service", "start btfleet-apply.service"]
    assert host.calls[:2] == [f"systemctl {name}" for name in names]
    left = everything(tmp_path)
    assert not any(name.startswith(("etc/", "run/", "state")) for name in left)
    assert {name for name in left if name.startswith("units/")} == {f"units/{BOOT}"}
    assert host.active == {BOOT}
    assert ("btfleet" in host.users, "btfleet" in host.groups) == (False, False)
    again = call("poller_agent", state="absent")
    assert again["changed"] is False


def test_removal_leaves_what_is_the_trackers(
    call: Call, host: FakeHost, wish: dict[str, Any], tmp_path: Path
) -> None:
    call("poller_agent", **wish)
    (tmp_path / "etc" / "btfleet" / "spec.json").write_text("{}")
    call("poller_agent", state="absent")
    assert everything(tmp_path / "etc") == {"btfleet", "btfleet/spec.json"}
    assert host.active == {BOOT}


def test_a_bare_host_has_nothing_to_remove(call: Call, host: FakeHost) -> None:
    assert call("poller_agent", state="absent")["changed"] is False
    assert host.calls == []


# --- beside the module release -------------------------------------------------------------------


def test_the_module_release_keeps_the_dependencies_and_says_that_there_is_an_agent(
    call: Call, host: FakeHost, wish: dict[str, Any]
) -> None:
    current = call("poller_agent", **wish)["current"]
    arguments = {name: value for name, value in wish.items() if name.startswith("_")}
    for name in ("_ca", "_director_root", "_archive"):
        del arguments[name]
    arguments["interpreter"] = sys.executable
    result = call("release", **arguments)
    assert (result["changed"], result["current"], result["agent"]) == (False, current, True)
    call("poller_agent", state="absent")
    assert call("release", **arguments)["agent"] is False
    assert host.active == {BOOT}
