# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin in Ansible's own commands, with a config service on the loopback address."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from btfleet.config.v1.config_pb2 import ClientGetConfigsRequest, ClientGetConfigsResponse
from btfleet.config.v1.config_pb2_grpc import ConfigServiceStub

from tests.unit.inventory.conftest import OPERATOR, Fleet, metadata_of
from tests.unit.service.certificates import Authority
from tests.unit.service.test_service import eventually, poll_of

JSON_CACHE = {
    "cache": True,
    "cache_plugin": "ansible.builtin.jsonfile",
    "cache_connection": "cache",
}
EVIL = "{{ lookup('ansible.builtin.pipe', 'touch /tmp/btfleet-was-here') }}"


def test_hosts_come_with_what_they_said_and_in_the_group_of_their_state(fleet: Fleet) -> None:
    fleet.has("applied", "failing", "pending", "unheard", "unwell")
    good = fleet.hears("applied", labels={"site": "north"}, groups=["edge"])
    good.client.client_agent.version = "1.2.3"
    good.client.state.config_states.add(path="p", version=7, apply_phase=3, fingerprint="ab")
    good.client.effective.add(key="CONNTRACK.max_entries", value="2048", owner="base")
    fleet.poll(good)
    bad = fleet.hears("failing")
    bad.client.state.config_states.add(path="p", apply_phase=4, apply_error="no\nroom")
    fleet.poll(bad)
    fleet.poll(poll_of("pending"))
    unwell = poll_of("unwell", targets_version=1)
    unwell.client.health.status = "tracker: gone"
    fleet.poll(unwell)

    found = fleet.inventory()
    assert found.hosts == ["applied", "failing", "pending", "unheard", "unwell"]
    assert {
        state: found.group(f"btfleet_{state}")
        for state in ("applied", "failing", "pending", "stale", "unheard")
    } == {
        "applied": ["applied"],
        "failing": ["failing", "unwell"],
        "pending": ["pending"],
        "stale": ["unheard"],
        "unheard": ["unheard"],
    }
    assert found.group("btfleet_version_1_2_3") == ["applied"]
    assert found.group("btfleet_label_site_north") == ["applied"]
    assert found.group("btfleet_group_edge") == ["applied"]
    variables = found.variables("applied")
    assert all(name.startswith("btfleet_") for name in variables)
    assert variables["btfleet_labels"] == {"site": "north"}
    assert variables["btfleet_effective"] == [
        {"key": "CONNTRACK.max_entries", "value": 2048, "owner": "base"}
    ]
    assert variables["btfleet_configs"][0]["phase"] == "APPLIED"
    assert variables["btfleet_served_targets_version"] == 1
    assert found.variables("failing")["btfleet_problems"] == ["p failed: no room"]
    assert found.variables("unwell")["btfleet_problems"] == ["the agent is not well: tracker: gone"]
    assert found.variables("unheard")["btfleet_last_seen"] is None


def test_a_host_that_polls_no_more_is_stale(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.hears("h1", labels={"site": "north"})
    monkeypatch.setattr(fleet.world.daemon.clients, "_ttl", -1.0)
    found = fleet.inventory()
    assert found.group("btfleet_stale") == ["h1", "h2"]
    assert found.group("btfleet_unheard") == ["h2"]
    assert found.variables("h1")["btfleet_labels"] == {"site": "north"}
    assert found.variables("h1")["btfleet_problems"][0].startswith("not heard since 2")


def test_groups_of_states_are_there_for_a_playbook_even_if_nobody_is_in_them(fleet: Fleet) -> None:
    done = fleet.ansible("ansible", "btfleet_failing:btfleet_pending", "--list-hosts")
    assert "hosts (0)" in done.stdout
    assert "Could not match supplied host pattern" not in done.stderr


def test_groups_are_made_of_what_is_asked_for(fleet: Fleet) -> None:
    fleet.hears("h1", labels={"site": "north"}, groups=["edge"])
    fleet.write(group_by=["label"], group_prefix="now_")
    assert fleet.inventory().groups == {"now_label_site_north"}


def test_names_variables_and_groups_follow_expressions(fleet: Fleet) -> None:
    fleet.hears("h1", labels={"site": "north", "address": "192.0.2.7"})
    fleet.hears("h2", labels={"site": "south"})
    fleet.write(
        hostname="btfleet_host ~ '.example.org'",
        compose={"ansible_host": "btfleet_labels.address", "site": "btfleet_labels.site | upper"},
        groups={"northern": "btfleet_labels.site == 'north'"},
        keyed_groups=[{"key": "btfleet_labels.site", "prefix": "site"}],
    )
    found = fleet.inventory()
    assert found.hosts == ["h1.example.org", "h2.example.org"]
    assert found.variables("h1.example.org")["ansible_host"] == "192.0.2.7"
    assert "ansible_host" not in found.variables("h2.example.org")
    assert found.variables("h2.example.org")["site"] == "SOUTH"
    assert found.group("northern") == ["h1.example.org"]
    assert found.group("site_south") == ["h2.example.org"]


def test_an_expression_that_fails_is_said_only_if_it_is_strict(fleet: Fleet) -> None:
    fleet.write(hostname="nothing_like_it", compose={"x": "nothing_like_it"})
    assert fleet.inventory().hosts == ["h1", "h2"]
    fleet.write(hostname="nothing_like_it", strict=True)
    assert "`hostname` gives no name for h1" in fleet.failure()
    fleet.write(compose={"x": "nothing_like_it"}, strict=True)
    assert "Could not set x for host h1" in fleet.failure()


def test_a_host_cannot_take_another_ones_name(fleet: Fleet) -> None:
    fleet.has("h1", "h2", "h3", "h4")
    for host, name in (("h1", "h2"), ("h2", "fine"), ("h3", "same"), ("h4", "same")):
        fleet.hears(host, labels={"name": name})
    fleet.write(hostname="btfleet_labels.name")
    found = fleet.inventory()
    assert found.hosts == ["fine", "h1", "h3", "h4"]
    assert found.variables("fine")["btfleet_host"] == "h2"
    assert "host h1 keeps this name: h2, which `hostname` makes of it, is another" in found.warnings


def test_a_host_cannot_take_a_name_that_means_something_else(fleet: Fleet) -> None:
    names = ["all", "localhost", "a b", "a,b", "a\nb", "../x", "-o", "ä", "", "x" * 256]
    hosts = [f"h{number}" for number in range(len(names))]
    fleet.has(*hosts)
    for host, name in zip(hosts, names):
        fleet.hears(host, labels={"name": name})
    fleet.write(hostname="btfleet_labels.name")
    found = fleet.inventory()
    assert found.hosts == hosts
    assert found.warnings.count("is no name for a host") == len(names)


def test_a_token_for_a_name_that_no_inventory_takes_is_warned_of(fleet: Fleet) -> None:
    fleet.has("h1", "web[1:3]", "two\nlines")
    eventually(lambda: len(fleet.world.daemon._tokens.host_names) == 3)
    found = fleet.inventory()
    assert found.hosts == ["h1"]
    assert "host 'web[1:3]' is left out" in found.warnings
    assert r"host 'two\nlines' is left out" in found.warnings


# --- what a host says is only text -------------------------------------------------------------


def test_nothing_that_a_host_says_is_a_template(fleet: Fleet, tmp_path: Path) -> None:
    was_here = tmp_path / "was-here"
    evil = EVIL.replace("/tmp/btfleet-was-here", str(was_here))  # noqa: S108
    fleet.has("h1")
    request = fleet.hears("h1", labels={"site": evil, evil: "x"}, groups=[evil])
    request.client.client_agent.version = evil
    request.client.health.status = request.client.state.error = evil
    request.client.state.has_error = True
    request.client.effective.add(key=evil, value=evil, owner=evil)
    request.client.state.config_states.add(path=evil, apply_phase=4, apply_error=evil)
    fleet.poll(request)
    fleet.write(
        hostname="btfleet_labels.site",
        compose={
            "site": "btfleet_labels.site",
            "all_of_it": "btfleet_labels",
            "ansible_connection": "'local'",
            "ansible_python_interpreter": f"'{sys.executable}'",
        },
        keyed_groups=[{"key": "btfleet_labels", "prefix": "k"}, {"key": "btfleet_version"}],
        groups={"of_site": "btfleet_labels.site == 'x'"},
    )
    playbook = fleet.folder / "play.yml"
    playbook.write_text(
        """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: "{{ inventory_dir }}/out"
        mode: "0600"
        content: |
          {{ site }}
          {{ all_of_it }} {{ btfleet_labels }} {{ btfleet_groups }} {{ btfleet_version }}
          {{ btfleet_effective }} {{ btfleet_configs }} {{ btfleet_problems }} {{ btfleet_health }}
          {{ hostvars[inventory_hostname].site }} {{ group_names }}
    - ansible.builtin.debug:
        msg: "{{ site }} {{ vars.btfleet_labels }}"
"""
    )
    done = fleet.ansible("ansible-playbook", str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed=0" in done.stdout
    assert (fleet.folder / "out").read_text().startswith(f"{evil}\n")
    assert not was_here.exists()
    found = fleet.inventory()
    assert found.hosts == ["h1"]
    assert found.variables("h1")["site"] == evil
    assert not was_here.exists()


def test_odd_names_of_labels_and_groups_become_groups_behind_a_word_of_ours(fleet: Fleet) -> None:
    said: list[tuple[dict[str, str], list[str], set[str]]] = [
        ({"a": "all"}, ["all", "ungrouped"], {"label_a_all", "group_all", "group_ungrouped"}),
        ({"a\nb": "c d"}, ["x-y.z"], {"label_a_b_c_d", "group_x_y_z"}),
        ({"a": ""}, ["\x1b[31m", "'; rm -rf /"], {"label_a", "group___31m", "group____rm__rf__"}),
        ({"ключ": "值"}, ["!&:[]"], {"label_ключ_值", "group______"}),
        ({"__proto__": "x" * 256}, ["btfleet_applied"], {f"label___proto___{'x' * 256}"}),
    ]
    said[-1][2].add("group_btfleet_applied")
    hosts = [f"h{number}" for number in range(len(said))]
    fleet.has(*hosts)
    for host, (labels, groups, _expected) in zip(hosts, said):
        fleet.hears(host, labels=labels, groups=groups)
    found = fleet.inventory()
    for host, (labels, groups, expected) in zip(hosts, said):
        assert {name for name in found.groups if host in found.group(name)} == {
            "btfleet_applied",
            *(f"btfleet_{name}" for name in expected),
        }
        assert found.variables(host)["btfleet_labels"] == labels
        assert found.variables(host)["btfleet_groups"] == sorted(groups)


def test_an_effective_value_that_is_not_plain_stays_the_text_that_it_is(fleet: Fleet) -> None:
    values = [
        "[" * 4000,
        "1e999",
        "NaN",
        '"\\ud800"',
        "1" * 4000,
        '{"a": {"b": 1}}',
        "no",
        '[["x"]]',
    ]
    request = poll_of("h1", targets_version=1)
    for number, value in enumerate(values):
        request.client.effective.add(key=f"CONNTRACK.{number}", value=value)
    fleet.poll(request)
    effective = fleet.inventory().variables("h1")["btfleet_effective"]
    assert [each["value"] for each in effective] == values


# --- a playbook --------------------------------------------------------------------------------


def test_a_playbook_runs_on_many_hosts_of_it_at_once(fleet: Fleet) -> None:
    """The connection to the service is closed before Ansible forks."""
    hosts = [f"h{number:02}" for number in range(30)]
    fleet.has(*hosts)
    eventually(lambda: len(fleet.world.daemon._tokens.host_names) == 30)
    fleet.write(compose={"ansible_connection": "'local'"})
    playbook = fleet.folder / "play.yml"
    playbook.write_text(
        "- hosts: btfleet_stale\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.raw: 'true'\n    - ansible.builtin.meta: refresh_inventory\n"
        "    - ansible.builtin.raw: 'true'\n"
    )
    done = fleet.ansible("ansible-playbook", "--forks", "10", str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("failed=0") == 30
    assert done.stderr == ""


# --- what can go wrong --------------------------------------------------------------------------


def stopped(fleet: Fleet) -> None:
    fleet.write()
    fleet.world.stop()


def wrong_token(fleet: Fleet) -> None:
    (fleet.folder / "operator.token").write_text("wrong-token")


def token_of_a_host(fleet: Fleet) -> None:
    (fleet.folder / "operator.token").write_text("token-of-h1")


def wrong_ca(fleet: Fleet) -> None:
    (fleet.folder / "ca.pem").write_bytes(Authority("another CA").certificate)


def no_token_file(fleet: Fleet) -> None:
    (fleet.folder / "operator.token").unlink()


def no_token(fleet: Fleet) -> None:
    fleet.write(token_file=None)


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (stopped, "is not to be reached"),
        (wrong_ca, "CERTIFICATE_VERIFY_FAILED"),
        (wrong_token, "does not take the token"),
        (token_of_a_host, "use an operator's token, not a host's"),
        (no_token_file, "cannot read the token file"),
        (no_token, "no token is given"),
    ],
)
def test_what_goes_wrong_is_said_in_a_clear_line(
    fleet: Fleet, breaks: Callable[[Fleet], None], words: str
) -> None:
    breaks(fleet)
    said = fleet.failure()
    assert words in said
    assert "Traceback" not in said
    assert not any(secret in said for secret in (OPERATOR, "token-of-h1", "secret words"))
    assert ".cc:" not in said, "gRPC prints nothing of its own"


def test_a_file_of_another_name_is_not_taken(fleet: Fleet) -> None:
    fleet.source = fleet.write().rename(fleet.folder / "fleet.yml")
    assert "could not be verified by inventory plugin" in fleet.failure()
    fleet.source = fleet.source.rename(fleet.folder / "btfleet.yaml")
    assert fleet.inventory().hosts == ["h1", "h2"]


def test_an_unknown_value_is_refused(fleet: Fleet) -> None:
    fleet.write(group_by=["color"])
    assert "color" in fleet.failure()


# --- the token ---------------------------------------------------------------------------------


def vaulted(text: str) -> str:
    return str(VaultLib([("default", VaultSecret(b"password"))]).encrypt(text), "ascii")


def test_the_token_may_come_from_a_vault(fleet: Fleet) -> None:
    (fleet.folder / "password").write_text("password\n")
    vault = ("--vault-password-file", "password")
    (fleet.folder / "operator.token").write_text(vaulted(OPERATOR))
    assert fleet.inventory(*vault).hosts == ["h1", "h2"]
    assert "cannot read the token file" in fleet.failure()

    fleet.write(token_file=None)
    (fleet.folder / "vars.yml").write_text(vaulted(f"btfleet_operator_token: {OPERATOR}"))
    assert fleet.inventory("-e", "@vars.yml", *vault).hosts == ["h1", "h2"]

    indented = vaulted(OPERATOR).replace("\n", "\n  ")
    (fleet.folder / "vars.yml").write_text(f"btfleet_operator_token: !vault |\n  {indented}\n")
    assert fleet.inventory("-e", "@vars.yml", *vault).hosts == ["h1", "h2"]

    path = fleet.write(token_file=None)
    path.write_text(f"{path.read_text()}token: !vault |\n  {indented}\n")
    assert fleet.inventory(*vault).hosts == ["h1", "h2"]


def test_the_token_may_come_from_a_lookup_or_the_environment(fleet: Fleet) -> None:
    fleet.write(token_file=None, token="{{ lookup('ansible.builtin.env', 'SECRET') }}")  # noqa: S106
    fleet.environment["SECRET"] = OPERATOR
    assert fleet.inventory().hosts == ["h1", "h2"]
    fleet.environment = {"BTFLEET_OPERATOR_TOKEN": OPERATOR}
    fleet.write(token_file=None)
    assert fleet.inventory().hosts == ["h1", "h2"]


# --- the cache ---------------------------------------------------------------------------------


def test_a_cached_view_is_used_while_the_service_is_away(fleet: Fleet) -> None:
    fleet.hears("h1", labels={"site": EVIL})
    fleet.write(**JSON_CACHE, compose={"site": "btfleet_labels.site"})
    first = fleet.inventory()
    fleet.world.stop()
    again = fleet.inventory()
    assert again.data == first.data
    assert again.variables("h1")["site"] == EVIL
    done = fleet.ansible(
        "ansible", "h1", "-c", "local", "-m", "ansible.builtin.debug", "-a", "var=btfleet_labels"
    )
    assert "touch /tmp/btfleet-was-here" in done.stdout, done.stdout
    playbook = fleet.folder / "play.yml"
    playbook.write_text("- hosts: all\n")
    anew = fleet.ansible("ansible-playbook", "--list-hosts", "--flush-cache", str(playbook))
    assert anew.returncode != 0
    assert "is not to be reached" in " ".join(anew.stderr.split())


def test_a_cache_is_not_taken_for_another_service(fleet: Fleet) -> None:
    fleet.write(**JSON_CACHE)
    fleet.inventory()
    fleet.write(**JSON_CACHE, service="localhost:1")
    assert "localhost:1 is not to be reached" in fleet.failure()


def test_without_a_cache_each_run_asks(fleet: Fleet) -> None:
    assert fleet.inventory().group("btfleet_applied") == []
    fleet.hears("h1")
    assert fleet.inventory().group("btfleet_applied") == ["h1"]


# --- many --------------------------------------------------------------------------------------


def test_five_thousand_hosts(fleet: Fleet) -> None:
    hosts = [f"h{number:04}" for number in range(5000)]
    fleet.has(*hosts)
    eventually(lambda: len(fleet.world.daemon._tokens.host_names) == 5000)
    stub = ConfigServiceStub(fleet.world.channel())
    calls: list[grpc.Future[ClientGetConfigsResponse]] = []
    for number, host in enumerate(hosts[:4990]):
        request: ClientGetConfigsRequest = poll_of(
            host, targets_version=number % 2, labels={"site": f"s{number % 10}"}, groups=["edge"]
        )
        calls.append(stub.ClientGetConfigs.future(request, metadata=metadata_of(host)))
        if len(calls) == 200:
            for call in calls:
                call.result()
            calls.clear()
    for call in calls:
        call.result()
    found = fleet.inventory()
    assert found.hosts == hosts
    assert len(found.group("btfleet_applied")) == 2495
    assert len(found.group("btfleet_unheard")) == 10
    assert len(found.group("btfleet_label_site_s3")) == 499
