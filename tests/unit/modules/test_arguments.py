# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and defaults are written in several places; here they are held to be the same."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.btfleet.conntrack.plugins.module_utils._daemons import agent_files
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel import spec as spec_module
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.conntrack import (
    flow,
    reading,
)

MODULES = (
    "compliance_info",
    "config_repository",
    "config_service",
    "config_state_info",
    "conntrack_info",
    "conntrack_object",
    "core_support_info",
    "poller_agent",
    "release",
    "remote_config",
    "restore_point",
    "rollout_gate",
)
SPEC_DEFAULTS = {
    field.name: list(field.default) if isinstance(field.default, tuple) else field.default
    for field in fields(spec_module.Spec)
    if field.name != "object_sha256"
}
COMPARED = ("type", "elements", "choices", "default", "required")


class Seen(Exception):
    """Ends a module's main() at its AnsibleModule."""


def module_of(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.btfleet.conntrack.plugins.modules.{name}")


def argument_spec(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    found: dict[str, Any] = {}

    def capture(**arguments: Any) -> None:
        found.update(arguments)
        raise Seen

    module = module_of(name)
    monkeypatch.setattr(module, "AnsibleModule", capture)
    with pytest.raises(Seen):
        module.main()
    assert found["supports_check_mode"] is True
    options: dict[str, dict[str, Any]] = found["argument_spec"]
    return options


def documented(name: str) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = yaml.safe_load(module_of(name).DOCUMENTATION)["options"]
    return options


def compared(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: option[key] for key in COMPARED if key in option}
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_a_module_takes_what_it_documents(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(argument_spec(name, monkeypatch)) == compared(documented(name))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_documents_itself_by_its_own_name(name: str) -> None:
    module = module_of(name)
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == name
    assert set(documentation["attributes"]) == {"check_mode", "diff_mode"}
    for task in yaml.safe_load(module.EXAMPLES):
        used = {key: value for key, value in task.items() if key.startswith("btfleet.")}
        for arguments in used.values():
            assert set(arguments or {}) <= set(documentation["options"])


def test_every_module_is_looked_at(checkout: Path) -> None:
    found = {path.stem for path in (checkout / "plugins" / "modules").glob("*.py")}
    # compliance_report is an action, whose module is its documentation
    assert found - {"__init__", "compliance_report"} == set(MODULES)


def test_the_specs_settings_are_the_modules_options(monkeypatch: pytest.MonkeyPatch) -> None:
    options = argument_spec("conntrack_object", monkeypatch)
    assert set(module_of("conntrack_object").SETTINGS) == set(SPEC_DEFAULTS)
    assert {name: options[name].get("default") for name in SPEC_DEFAULTS} == SPEC_DEFAULTS


@pytest.mark.parametrize("name", ["tiers", "allow_fentry_deadlock", "btf_path"])
def test_a_check_judges_by_the_same_defaults_as_a_load(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = argument_spec("core_support_info", monkeypatch)
    assert options[name].get("default") == SPEC_DEFAULTS[name]


def test_the_roles_defaults_are_the_specs(checkout: Path) -> None:
    role = checkout / "roles" / "conntracker"
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    for name, value in SPEC_DEFAULTS.items():
        assert defaults.get(f"conntracker_{name}") == value, name
        assert options[f"conntracker_{name}"].get("default") == value, name


def test_the_roles_options_are_the_modules(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    role = checkout / "roles" / "conntracker"
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    module = argument_spec("conntrack_object", monkeypatch)
    for name in SPEC_DEFAULTS:
        wanted = {
            key: module[name][key] for key in ("type", "elements", "choices") if key in module[name]
        }
        option = options[f"conntracker_{name}"]
        assert {key: option.get(key) for key in wanted} == wanted, name
    keep = argument_spec("release", monkeypatch)["keep"]["default"]
    assert options["conntracker_keep_releases"]["default"] == keep


def test_the_roles_options_for_the_agent_are_the_modules(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = checkout / "roles" / "conntracker"
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    module = argument_spec("poller_agent", monkeypatch)
    for name in (*agent_files.OPTIONS, "token", "ca", "director_root", "interpreter"):
        wanted = {
            key: module[name][key] for key in ("type", "elements", "choices") if key in module[name]
        }
        option = options[f"conntracker_agent_{name}"]
        assert {key: option.get(key) for key in wanted} == wanted, name
    assert options["conntracker_agent_token"]["no_log"] is True
    assert module["token"]["no_log"] is True
    for name in ("pip_arguments", "archives"):
        assert options[f"conntracker_{name}"]["type"] == module[name]["type"]
    default = module["interpreter"]["default"]
    assert options["conntracker_agent_interpreter"]["default"] == default


def test_modules_that_install_a_release_take_the_same_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = (argument_spec(name, monkeypatch) for name in ("release", "poller_agent"))
    for name in ("src", "keep", "interpreter", "pip_arguments", "archives"):
        assert one[name] == other[name]


def test_documented_ranges_are_the_specs(checkout: Path) -> None:
    wanted = f"{spec_module.MIN_ENTRIES} to {spec_module.MAX_ENTRIES}"
    role = (checkout / "roles" / "conntracker" / "meta" / "argument_specs.yml").read_text()
    options = documented("conntrack_object")
    for name in ("max_entries", "closed_entries"):
        assert wanted in str(options[name]["description"])
    assert role.count(wanted) == 2


def test_states_of_flows_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    states = argument_spec("conntrack_info", monkeypatch)["states"]
    assert list(reading.MAPS) == states["choices"] == [flow.LIVE_STATE, flow.CLOSED_STATE]


def test_one_version_everywhere(checkout: Path) -> None:
    import btfleet  # noqa: PLC0415

    galaxy = yaml.safe_load((checkout / "galaxy.yml").read_text())
    assert galaxy["version"] == btfleet.__version__
