# SPDX-License-Identifier: GPL-3.0-or-later
"""Published, received, applied and in force, side by side; and whether they agree.

The state file is written by the agent's own code, and the metadata by python-tuf.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.errors import ConfigError
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.remote import (
    Answer,
    write_allowed,
    write_answer,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import (
    agent_state,
    config_state,
    poller_agent,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons.config_state import (
    Applied,
    Host,
    Stored,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader.load import (
    Tracker,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.store import Store
from ansible_collections.btfleet.conntrack.plugins.module_utils._release import release
from btfleet._config.paths import parse
from btfleet.poller.repository import StateRepository
from btfleet.poller.states import APPLIED, FAILED, ApplyState
from btfleet.poller.verify import Config, HeldTargets, Trusted
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from tests.unit.modules.conftest import Call

NOW = 2_000_000_000
SETTINGS: dict[str, Any] = {
    "host": "edge1",
    "service": "config:8443",
    "groups": ["edge"],
    "labels": {"site": "ber1"},
}
HOST = Host.of(SETTINGS)
PATH = "btfleet/1/CONNTRACK/edge/no-udp6"
RAW = b'{"udpv6_enabled": false}'
SHA = hashlib.sha256(RAW).hexdigest()


def metadata(*targets: tuple[str, bytes, dict[str, Any]]) -> bytes:
    """The director's targets, as a publisher writes them."""
    signed = Targets(version=7)
    for path, raw, custom in targets:
        target = TargetFile.from_data(path, raw, ["sha256", "sha512"])
        target.unrecognized_fields["custom"] = custom
        signed.targets[path] = target
    return Metadata(signed).to_bytes()


def applied(phase: str = "APPLIED", **change: Any) -> Applied:
    row = Applied(PATH, 3, SHA, config_state.PHASES.index(phase), "", "f" * 64, NOW - 60)
    return row._replace(**change)


def stored(**change: Any) -> Stored:
    """All is well."""
    return Stored(
        **{
            "targets": metadata((PATH, RAW, {"v": 3})),
            "files": {PATH: RAW},
            "states": (applied(),),
            **change,
        }
    )


def lines(found: Stored) -> list[str]:
    """What does not agree."""
    configs = config_state.configs(found, HOST, NOW)
    return config_state.disagreements(configs, found.expired, NOW)


# --- side by side --------------------------------------------------------------------------------


def test_a_config_that_is_in_force() -> None:
    assert config_state.configs(stored(), HOST, NOW) == [
        {
            "path": PATH,
            "product": "CONNTRACK",
            "published": {
                "version": 3,
                "sha256": SHA,
                "length": len(RAW),
                "expires": 0,
                "predicates": [],
                "for_this_host": True,
            },
            "received": {
                "sha256": SHA,
                "length": len(RAW),
                "content": {"udpv6_enabled": False},
            },
            "applied": {
                "version": 3,
                "sha256": SHA,
                "phase": "APPLIED",
                "reason": None,
                "fingerprint": "f" * 64,
                "changed_at": NOW - 60,
                "age_seconds": 60,
            },
        }
    ]
    assert lines(stored()) == []


def test_nothing_is_known_of_a_host_that_never_polled() -> None:
    assert config_state.configs(Stored(), HOST, NOW) == []
    assert lines(Stored()) == []


@pytest.mark.parametrize(
    ("path", "conditions", "meant"),
    [
        (PATH, [], True),
        (PATH, [{"host": "edge1"}], True),
        (PATH, [{"host": "edge2"}], False),
        (PATH, [{"host": "edge2"}, {"group": "edge", "labels": {"site": "ber1"}}], True),
        (PATH, [{"labels": {"site": "ham1"}}], False),
        (PATH.replace("/1/", "/2/"), [], False),
        ("somewhere/else", [], False),
    ],
)
def test_whom_a_config_is_for(path: str, conditions: list[Any], meant: bool) -> None:
    raw = metadata((path, RAW, {"v": 1, "predicates": conditions}))
    assert config_state.published(raw, HOST)[path]["for_this_host"] is meant


def test_a_product_that_the_agent_does_not_ask_for_is_not_for_it() -> None:
    host = Host.of({**SETTINGS, "products": ["AGENT"]})
    raw = metadata((PATH, RAW, {"v": 1}))
    assert config_state.published(raw, host)[PATH]["for_this_host"] is False


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"files": {}, "states": ()}, "version 3 is published, but was not received"),
        ({"files": {PATH: b"{}"}}, "version 3 is published, but another content was received"),
        ({"states": ()}, "version 3 was received, but the agent says nothing of it"),
        ({"states": (applied(version=2),)}, "version 3 was received, but 2 is what is applied"),
        ({"states": (applied("RECEIVED"),)}, "version 3 is RECEIVED"),
        ({"states": (applied("APPLYING"),)}, "version 3 is APPLYING"),
        ({"states": (applied("FAILED", reason="no memory"),)}, "version 3 is FAILED (no memory)"),
        ({"states": (applied()._replace(phase=99),)}, "version 3 is UNKNOWN"),
        ({"targets": metadata()}, "in force here, but not published for this host"),
        (
            {"targets": metadata((PATH, RAW, {"v": 3, "predicates": [{"host": "other"}]}))},
            "in force here, but not published for this host",
        ),
        (
            {"targets": metadata((PATH, RAW, {"v": 3, "expires": NOW}))},
            "in force here, but not published for this host",
        ),
    ],
)
def test_what_does_not_agree_is_one_line(change: dict[str, Any], line: str) -> None:
    assert lines(stored(**change)) == [f"{PATH}: {line}"]


@pytest.mark.parametrize(
    "custom",
    [{"v": 3, "predicates": [{"host": "other"}]}, {"v": 3, "expires": NOW - 1}],
)
def test_another_hosts_or_an_expired_config_is_not_missed(custom: dict[str, Any]) -> None:
    targets = metadata((PATH, RAW, custom))
    assert lines(stored(targets=targets, files={}, states=())) == []


def test_an_expired_director_is_said_once() -> None:
    assert lines(stored(expired=True, files={}, states=())) == [
        "the director has expired: no config is in force"
    ]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"signed": {"targets": []}}'])
def test_damaged_metadata_is_named(raw: bytes) -> None:
    with pytest.raises(ConfigError, match="targets"):
        config_state.published(raw, HOST)


def test_ages_know_never_and_a_clock_that_was_put_back() -> None:
    assert (config_state.age(0, 10), config_state.age(4, 10), config_state.age(40, 10)) == (
        *(None, 6, 0),
    )


def test_values_in_force_have_owner_base_and_age() -> None:
    base = Spec("a" * 64).to_dict()
    record = {"spec": {**base, "udpv6_enabled": False}, "loaded_at": NOW - 86}
    owners = {**dict.fromkeys(base, "base"), "udpv6_enabled": PATH, "max_entries": None}
    agent = [
        {"key": "AGENT.log_level", "value": '"debug"', "owner": "base"},
        {"key": "CONNTRACK.udpv6_enabled", "value": "false", "owner": PATH},
        {"key": "AGENT.metrics", "value": "odd", "owner": ""},
    ]
    rows = {row["key"]: row for row in config_state.effective(record, owners, base, agent, NOW)}
    assert len(rows) == len(base) + 2
    assert rows["CONNTRACK.udpv6_enabled"] == {
        "key": "CONNTRACK.udpv6_enabled",
        "value": False,
        "owner": PATH,
        "base": True,
        "age_seconds": 86,
    }
    assert rows["CONNTRACK.max_entries"]["owner"] is None
    assert (rows["AGENT.log_level"]["value"], rows["AGENT.log_level"]["owner"]) == ("debug", "base")
    assert (rows["AGENT.metrics"]["value"], rows["AGENT.metrics"]["owner"]) == ("odd", None)
    assert config_state.effective(None, {}, None, [], NOW) == []


# --- the state file ------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[StateRepository]:
    """The agent's, with one config in force."""
    (tmp_path / "state").mkdir()
    repository = StateRepository(str(tmp_path / "state"))
    config = Config(parse(PATH), 3, 0, RAW, {"sha256": SHA})
    raw = metadata((PATH, RAW, {"v": 3}))
    held = HeldTargets(raw, 7, NOW, b"")
    trusted = Trusted((b"root",), Metadata(Root()).signed, 1, held, {PATH: config})
    repository.commit(trusted, "digest")
    repository.save_states([ApplyState(PATH, 3, SHA, APPLIED, "", "f" * 64, NOW - 60)])
    yield repository
    repository.close()


def test_the_agents_own_state_is_read_while_it_runs(repository: StateRepository) -> None:
    assert agent_state.read_stored(repository.path) == stored()


def test_the_state_of_an_agent_that_has_ended_is_read_and_nothing_written(
    repository: StateRepository,
) -> None:
    repository.close()
    folder = os.path.dirname(repository.path)
    before = sorted(os.listdir(folder))
    assert agent_state.read_stored(repository.path) == stored()
    assert sorted(os.listdir(folder)) == before == ["state.db"]


def test_a_host_without_a_state_has_none(tmp_path: Path) -> None:
    assert agent_state.read_stored(str(tmp_path / "state.db")) == Stored()


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(agent_state.StateUnreadable, match=r"state\.db cannot be read"):
        agent_state.read_stored(str(path))
    path.unlink()
    path.touch()
    with pytest.raises(agent_state.StateUnreadable, match="has schema 0, this module knows 1"):
        agent_state.read_stored(str(path))


# --- the module ----------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose command answers what lies in `answer`."""
    for name in ("etc", "opt/current/bin", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc" / "agent.json").write_text(json.dumps(SETTINGS))
    command = tmp_path / "opt" / "current" / "bin" / "btfleet"
    command.write_text(f"#!/bin/sh\ncat {tmp_path}/answer\nexit 1\n")
    command.chmod(0o755)
    store = Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "state" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    module = importlib.import_module(
        "ansible_collections.btfleet.conntrack.plugins.modules.config_state_info"
    )
    monkeypatch.setattr(module, "Tracker", lambda: Tracker(store, str(tmp_path / "bpf")))
    layout = poller_agent.Layout(etc=str(tmp_path / "etc"), state=str(tmp_path / "state"))
    monkeypatch.setattr(poller_agent, "Layout", lambda: layout)
    releases = release.Layout(str(tmp_path / "opt"))
    monkeypatch.setattr(release, "Layout", lambda: releases)
    write_allowed(store, ["CONNTRACK.udpv6_enabled"])
    write_answer(store, Answer("b" * 64, "failed", None, "no", 5))
    return tmp_path


RUNNING: dict[str, Any] = {
    "running": True,
    "error": None,
    "version": "0.1.0",
    "service": "config:8443",
    "client": {"root_version": "1", "targets_version": "7", "error": "", "config_states": []},
    "health": {"healthy": True, "last_error": ""},
    "last_poll_at": "1999999999",
    "last_success_at": "1999999999",
    "polling_ended": False,
    "effective": [{"key": "AGENT.metrics", "value": "true", "owner": "base"}],
}


def answer(host: Path, agent: dict[str, Any] | None) -> None:
    (host / "answer").write_text(json.dumps({"loaded": False, "agent": agent}))


@pytest.mark.usefixtures("repository")
def test_a_host_where_all_agrees(call: Call, host: Path) -> None:
    answer(host, RUNNING)
    result = call("config_state_info")
    assert (result["agreed"], result["disagreements"], result["unknown"]) == (True, [], [])
    assert result["changed"] is False
    assert result["agent"]["targets_version"] == 7
    assert result["configs"][0]["applied"]["phase"] == "APPLIED"
    assert result["allowed"] == ["CONNTRACK.udpv6_enabled"]
    assert result["loader"]["reason"] == "no"
    assert [row["key"] for row in result["effective"]] == ["AGENT.metrics"]


def test_a_failed_config_is_said(call: Call, host: Path, repository: StateRepository) -> None:
    repository.save_states([ApplyState(PATH, 3, SHA, FAILED, "no memory", "", NOW)])
    answer(host, RUNNING)
    result = call("config_state_info")
    assert result["agreed"] is False
    assert result["disagreements"] == [f"{PATH}: version 3 is FAILED (no memory)"]


def test_an_agent_that_does_not_run_is_a_result(call: Call, host: Path) -> None:
    answer(host, {"running": False, "error": "it does not run"})
    result = call("config_state_info")
    assert (result["agreed"], result["agent"]["installed"]) == (False, True)
    assert result["disagreements"] == ["the agent: it does not run"]


def test_a_host_without_an_agent_is_a_result(call: Call, host: Path) -> None:
    (host / "etc" / "agent.json").unlink()
    answer(host, None)
    result = call("config_state_info")
    assert (result["agreed"], result["agent"]["installed"]) == (False, False)
    assert (result["configs"], result["disagreements"], result["unknown"]) == ([], [], [])


def test_a_bare_host_is_a_result(call: Call, host: Path) -> None:
    for path in (host / "opt" / "current" / "bin" / "btfleet", host / "etc" / "agent.json"):
        path.unlink()
    result = call("config_state_info")
    assert (result["agent"]["installed"], result["unknown"]) == (False, [])


def test_what_cannot_be_read_is_named_and_no_failure(call: Call, host: Path) -> None:
    (host / "answer").write_text("btfleet: no")
    (host / "state").mkdir()
    (host / "state" / "state.db").write_bytes(b"x" * 5000)
    (host / "etc" / "remote.json").write_text("{")
    (host / "etc" / "spec.json").write_text("{")
    result = call("config_state_info")
    assert result["agreed"] is False
    assert len(result["unknown"]) == 4
    assert all(len(line.splitlines()) == 1 for line in result["unknown"])
