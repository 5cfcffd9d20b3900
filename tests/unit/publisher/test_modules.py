# SPDX-License-Identifier: GPL-3.0-or-later
"""The publishing modules as Ansible runs them, and the playbook that uses them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import libraries
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.keys import VARIABLE
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import DEFAULTS

from tests.unit.publisher.places import PASSPHRASE, Client, Place, path_of

Call = Callable[..., dict[str, Any]]

MODULES = ("config_repository", "remote_config")
COMPARED = ("type", "elements", "choices", "default", "required")
NO_UDP6 = {"product": "CONNTRACK", "id": "edge", "name": "x", "content": {"udpv6_enabled": False}}


def module_of(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.btfleet.conntrack.plugins.modules.{name}")


@pytest.fixture
def call(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a module in this process on the place; what it answers, without secrets."""
    # Where other tests have imported the control node's side, warnings would go to its display
    monkeypatch.setattr("ansible.module_utils._internal.is_controller", False)

    def run(module_name: str, /, _check: bool = False, **arguments: Any) -> dict[str, Any]:
        common = {"path": str(place.root), "keys": str(place.keys), "passphrase": PASSPHRASE}
        given = {key: value for key, value in {**common, **arguments}.items() if value is not None}
        module = module_of(module_name)
        with (
            patch_module_args({**given, "_ansible_check_mode": _check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        out = capsys.readouterr().out
        assert PASSPHRASE not in out
        assert "PRIVATE" not in out
        result: dict[str, Any] = json.loads(out)
        if result.get("failed"):
            assert len(result["msg"].splitlines()) == 1
        return result

    return run


# --- options -------------------------------------------------------------------------------------


class Seen(Exception):
    """Ends a module's main() at its AnsibleModule."""


def compared(options: dict[str, dict[str, Any]], inner: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, option in options.items():
        found[name] = {key: option[key] for key in COMPARED if key in option}
        if inner in option:
            found[name]["inner"] = compared(option[inner], inner)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_options_are_the_real_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def capture(**arguments: Any) -> None:
        seen.update(arguments)
        raise Seen

    module = module_of(name)
    monkeypatch.setattr(module, "AnsibleModule", capture)
    with pytest.raises(Seen):
        module.main()
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert compared(seen["argument_spec"], "options") == compared(documented, "suboptions")
    assert seen["supports_check_mode"] is True
    for option, spec in seen["argument_spec"].items():
        if option in ("passphrase", "passphrases"):
            assert spec["no_log"] is True
    for block in ("EXAMPLES", "RETURN"):
        assert yaml.safe_load(getattr(module, block))


def test_the_documented_defaults_of_roles_are_the_real_ones() -> None:
    text = module_of("config_repository").DOCUMENTATION
    options = yaml.safe_load(text)["options"]
    said = " ".join(options["roles"]["description"])
    days = [str(DEFAULTS[role].days) for role in ("targets", "snapshot", "timestamp")]
    assert f"{DEFAULTS['root'].keys} keys" in said
    assert f"{DEFAULTS['root'].days} days" in said
    assert f"{days[0]}, {days[1]} and {days[2]} days" in said


# --- config_repository ---------------------------------------------------------------------------


def test_repositories_are_made_once(call: Call, tmp_path: Path) -> None:
    new = Place(tmp_path / "new")
    where = {"path": str(new.root), "keys": str(new.keys)}
    check = call("config_repository", _check=True, **where)
    assert (check["changed"], new.folder.exists()) == (True, False)
    first = call("config_repository", **where)
    assert (first["changed"], first["generation"]) == (True, 1)
    for name in ("director", "config"):
        assert Path(first["root_files"][name]).is_file()
    assert first["diff"]["before"] == {"director": None, "config": None}
    again = call("config_repository", **where)
    assert (again["changed"], again["generation"]) == (False, 1)
    assert again["repositories"] == first["repositories"]


def test_keys_and_thresholds_are_brought_to_what_is_wanted(call: Call, place: Place) -> None:
    roles = [{"name": "director.root", "keys": 3, "threshold": 2, "expiry_days": 100}]
    check = call("config_repository", _check=True, roles=roles)
    done = call("config_repository", roles=roles)
    for result in (check, done):
        assert result["changed"] is True
        root = result["diff"]["after"]["director"]["root"]
        assert (root["version"], root["threshold"], root["expiry_days"]) == (2, 2, 100)
        assert len(root["keys"]) == 3
    assert call("config_repository", roles=roles)["changed"] is False
    assert len(place.key_files("director.root")) == 3


def test_a_rotation_is_done_once_for_its_id(call: Call) -> None:
    rotation = {"rotate": ["director.targets", "config.root"], "rotation_id": "2026-11"}
    assert call("config_repository", **rotation)["changed"] is True
    assert call("config_repository", **rotation)["changed"] is False
    assert call("config_repository")["changed"] is False
    assert call("config_repository", **{**rotation, "rotation_id": "2026-12"})["changed"] is True


def test_a_renewal_without_keys_is_a_warning_and_the_others_are_done(
    call: Call, tmp_path: Path
) -> None:
    old = Place(tmp_path / "old")
    old.converge(now=datetime.now(timezone.utc) - timedelta(days=5))
    old.key_files("director.timestamp")[0].unlink()
    result = call("config_repository", path=str(old.root), keys=str(old.keys))
    assert result["changed"] is True
    assert result["repositories"]["config"]["timestamp"]["version"] == 2
    assert result["repositories"]["director"]["timestamp"]["version"] == 1
    assert "director.timestamp expires at" in str(result["warnings"])


def test_removing_has_to_be_meant(call: Call, place: Place) -> None:
    assert call("config_repository", state="absent")["msg"].startswith("state is absent without")
    assert call("config_repository", _check=True, state="absent", force=True)["changed"] is True
    assert place.current.exists()
    assert call("config_repository", state="absent", force=True)["changed"] is True
    assert call("config_repository", state="absent", force=True)["changed"] is False
    assert not place.root.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"renew_margin": 0}, "the renewal margin is 0, needed"),
        ({"keep_generations": 0}, "keep_generations is 0, needed"),
        ({"org": -1}, "org is -1, needed"),
        ({"org": 2}, "the repositories are for org 1"),
        ({"rotate": ["director.root"]}, "rotate is given without rotation_id"),
        ({"rotate": ["director.x"]}, "value of rotate must be one or more of"),
        ({"roles": [{"name": "config.root", "threshold": 3}]}, "config.root is to have the thresh"),
        ({"roles": [{"name": "config.root"}] * 2}, "roles has config.root twice"),
        ({"passphrases": {"root": "x"}}, "passphrases names 'root', known are"),
        (
            {"rotate": ["director.root"], "rotation_id": "1", "passphrase": "wrong horse"},
            "the key file ",
        ),
    ],
)
def test_an_argument_that_cannot_be_is_refused(
    call: Call, place: Place, arguments: dict[str, Any], message: str
) -> None:
    before = place.tree()
    for check in (True, False):
        result = call("config_repository", _check=check, **arguments)
        assert result["failed"] is True
        assert result["msg"].startswith(message)
    assert place.tree() == before


@pytest.mark.parametrize("name", MODULES)
def test_missing_libraries_are_named(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(libraries, "IMPORT_ERROR", "Traceback ...")
    arguments = NO_UDP6 if name == "remote_config" else {}
    message = call(name, **arguments)["msg"]
    assert "tuf (6.0 or newer) with securesystemslib[crypto]" in message


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_that_cannot_be_written_is_named(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    arguments = NO_UDP6 if name == "remote_config" else {}
    result = call(name, path=str(tmp_path / "file" / "x"), **arguments)
    assert result["msg"].startswith("cannot publish (")


# --- remote_config -------------------------------------------------------------------------------


def test_a_config_is_published_once_changed_and_withdrawn(call: Call, client: Client) -> None:
    check = call("remote_config", _check=True, **NO_UDP6)
    assert client.fetch(path_of()) is None
    first = call("remote_config", **NO_UDP6)
    for result in (check, first):
        assert (result["changed"], result["path"], result["version"]) == (True, path_of(), 2)
        assert result["generation"] == 2
        assert result["diff"]["before"] == {path_of(): None}
        assert result["diff"]["after"][path_of()]["content"] == {"udpv6_enabled": False}
    assert check["sha256"] == first["sha256"]
    assert client.fetch(path_of()) == b'{"udpv6_enabled":false}\n'
    again = call("remote_config", **NO_UDP6)
    assert (again["changed"], again["version"], again["generation"]) == (False, 2, 2)
    assert again["diff"] == {"before": {}, "after": {}}
    other = call("remote_config", **{**NO_UDP6, "content": {"max_entries": 4096}})
    assert (other["changed"], other["version"]) == (True, 3)
    assert other["diff"]["before"][path_of()]["content"] == {"udpv6_enabled": False}
    gone = call("remote_config", state="absent", **NO_UDP6)
    assert (gone["changed"], gone["withdrawn"], gone["configs"]) == (True, [path_of()], {})
    assert "version" not in gone
    assert client.fetch(path_of()) is None
    assert call("remote_config", state="absent", **NO_UDP6)["changed"] is False


def test_predicates_and_expiry_are_signed_as_given(call: Call) -> None:
    result = call(
        "remote_config",
        **NO_UDP6,
        predicates=[{"host": "gw1"}, {"group": "edge", "labels": {"site": "fra"}}],
        expires="2100-01-01",
    )
    assert result["configs"][path_of()] == {
        "version": 2,
        "sha256": result["sha256"],
        "predicates": [{"host": "gw1"}, {"group": "edge", "labels": {"site": "fra"}}],
        "expires": 4102444800,
        "content": {"udpv6_enabled": False},
    }


def test_a_config_that_has_expired_already_is_warned_about(call: Call) -> None:
    result = call("remote_config", **NO_UDP6, expires="2020-01-01")
    assert result["changed"] is True
    assert "has expired already" in str(result["warnings"])


def test_many_configs_are_one_generation(call: Call) -> None:
    configs = [{**NO_UDP6, "name": f"c{number}"} for number in range(20)]
    first = call("remote_config", configs=configs)
    assert (first["generation"], len(first["configs"])) == (2, 20)
    assert call("remote_config", configs=configs, exclusive=True)["changed"] is False
    fewer = call(
        "remote_config", configs=[{**configs[0], "state": "absent"}, configs[1]], exclusive=True
    )
    assert fewer["generation"] == 3
    assert len(fewer["withdrawn"]) == 19
    assert list(fewer["configs"]) == [path_of("c1")]
    none = call("remote_config", configs=[], exclusive=True)
    assert none["withdrawn"] == [path_of("c1")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"content": {"udpv6_enabled": "no"}}, f"{path_of()}: udpv6_enabled is 'no', needed"),
        ({"content": {"x": 1}}, f"{path_of()}: unknown setting 'x'"),
        ({"content": None}, f"{path_of()}: content is missing"),
        ({"name": "../../etc/passwd"}, "name is '../../etc/passwd', needed"),
        ({"id": ".."}, "id is '..', needed"),
        ({"product": "OTHER"}, "value of product must be one of"),
        ({"predicates": [{}]}, f"{path_of()}: predicate 1 sets nothing"),
        ({"predicates": [{"labels": {"a": 1}}]}, f"{path_of()}: the label 'a' of predicate 1 is 1"),
        ({"expires": "soon"}, f"{path_of()}: expires is 'soon', needed"),
        ({"name": None}, "parameters are required together"),
        ({"configs": []}, "parameters are mutually exclusive"),
        ({"passphrase": "wrong horse"}, "the key file "),
        ({"passphrase_file": "/does/not/exist", "passphrase": None}, "cannot read the passphrase"),
        ({"keys": "/"}, "the key folder / and the published folder"),
    ],
)
def test_what_cannot_be_published_is_refused(
    call: Call, place: Place, arguments: dict[str, Any], message: str
) -> None:
    before = place.tree()
    for check in (True, False):
        result = call("remote_config", _check=check, **{**NO_UDP6, **arguments})
        assert result["failed"] is True
        assert result["msg"].startswith(message)
    assert place.tree() == before


def test_one_bad_config_of_many_publishes_none(call: Call, place: Place) -> None:
    before = place.tree()
    bad = {**NO_UDP6, "name": "bad", "content": {"max_entries": 1}}
    assert "max_entries is 1" in call("remote_config", configs=[NO_UDP6, bad])["msg"]
    assert place.tree() == before


def test_the_passphrase_may_come_from_the_environment(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("remote_config", **NO_UDP6, passphrase=None)["msg"].startswith("no passphrase for")
    monkeypatch.setenv(VARIABLE, PASSPHRASE)
    assert call("remote_config", **NO_UDP6, passphrase=None)["changed"] is True


# --- the playbook --------------------------------------------------------------------------------


def test_the_playbook_publishes_and_a_second_run_changes_nothing(
    empty: Place, tmp_path: Path, checkout: Path
) -> None:
    variables = {
        "btfleet_repository_path": str(empty.root),
        "btfleet_repository_keys": str(empty.keys),
        "btfleet_repository_roles": [{"name": "director.root", "keys": 3, "threshold": 2}],
        "btfleet_remote_configs": [{**NO_UDP6, "predicates": [{"host": "gw1"}]}],
    }
    (tmp_path / "variables.json").write_text(json.dumps(variables))
    environment = {
        **os.environ,
        VARIABLE: PASSPHRASE,
        "ANSIBLE_COLLECTIONS_PATH": str(checkout / "build" / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }

    publish = {"import_playbook": "btfleet.conntrack.publish"}
    (tmp_path / "once.yml").write_text(json.dumps([publish]))
    (tmp_path / "twice.yml").write_text(json.dumps([publish, publish]))

    def recap(*arguments: str) -> str:
        program = Path(sys.executable).parent / "ansible-playbook"
        extra = f"@{tmp_path / 'variables.json'}"
        done = subprocess.run(
            [str(program), "--diff", "-e", extra, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert PASSPHRASE not in done.stdout + done.stderr
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()[-2]

    assert "changed=1 " in recap("--check", "once.yml")
    assert not empty.root.exists()
    assert "changed=2 " in recap("twice.yml")  # all by the first of them
    assert empty.publisher().generations.current_number() == 2
