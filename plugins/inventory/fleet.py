# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The hosts that the config service of btfleet knows, as they are now
version_added: 0.1.0
description:
  - Asks the config service what it knows of each host that has a token, and makes an inventory of
    it, with groups for hosts that are stale or failing, and with what each host said of itself in
    its last poll.
  - The file's name has to be C(btfleet.yml) or end with C(.btfleet.yml) (or C(.yaml)).
  - Every host is in exactly one of the groups C(btfleet_applied) (all that is served is in force),
    C(btfleet_pending) (something is not there yet), C(btfleet_failing) (its agent says that
    something is wrong), C(btfleet_stale) (not heard within the service's C(client_ttl_seconds)) and
    C(btfleet_unheard) (not heard since the service started). The last one is within
    C(btfleet_stale) too. These groups are there even if nobody is in them.
  - C(btfleet_version_VERSION), C(btfleet_label_NAME_VALUE) and C(btfleet_group_NAME) have the hosts
    that say so of themselves. Characters that no group may have become C(_).
author:
  - btfleet contributors (@btfleet)
requirements:
  - grpcio and protobuf (3.20 or newer), in the Python that runs Ansible
notes:
  - Only a host's name is proven (by its token). Labels, groups and all else are what a host says of
    itself. They never become templates; but think before an expression over them decides where
    Ansible connects to, or what a host may have.
  - Host variables are C(btfleet_host), C(btfleet_state), C(btfleet_problems), C(btfleet_presence),
    C(btfleet_last_seen), C(btfleet_as_of), C(btfleet_service_started_at),
    C(btfleet_served_root_version), C(btfleet_served_targets_version), C(btfleet_served_expired),
    C(btfleet_version), C(btfleet_products), C(btfleet_groups), C(btfleet_labels),
    C(btfleet_root_version), C(btfleet_targets_version), C(btfleet_error), C(btfleet_health),
    C(btfleet_configs) and C(btfleet_effective).
  - By itself Ansible goes on with a warning where an inventory cannot be had. Set
    C(any_unparsed_is_failed) in the section C(inventory) of C(ansible.cfg) to make it an error.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Says that the file is for this plugin.
    type: str
    required: true
    choices: [btfleet.conntrack.fleet]
  service:
    description: The config service, as C(HOST:PORT).
    type: str
    required: true
    env:
      - name: BTFLEET_SERVICE
  ca:
    description:
      - File with the certificate of the CA that signed the service's, in PEM form.
      - Paths may be relative to the folder of the inventory file.
    type: str
    required: true
    env:
      - name: BTFLEET_CA
  token_file:
    description: File that holds the token of an operator. It may be encrypted with Ansible Vault.
    type: str
    env:
      - name: BTFLEET_OPERATOR_TOKEN_FILE
  token:
    description:
      - The token itself, in place of O(token_file). In the file it belongs encrypted with Ansible
        Vault, or as a template with a lookup.
      - As a variable it has to be an extra one, as by C(-e @vault.yml), since others are not known
        yet.
    type: str
    env:
      - name: BTFLEET_OPERATOR_TOKEN
    vars:
      - name: btfleet_operator_token
  tls_server_name:
    description: Name in the service's certificate, where it is not the one of O(service).
    type: str
  client_certificate:
    description: File with a certificate of ours, for a service that asks for mutual TLS.
    type: str
  client_key:
    description: File with the key of O(client_certificate).
    type: str
  timeout:
    description: Seconds that all of the asking may take.
    type: float
    default: 30
  group_by:
    description: What groups are made of.
    type: list
    elements: str
    choices: [state, version, label, group]
    default: [state, version, label, group]
  group_prefix:
    description: What the names of these groups begin with.
    type: str
    default: btfleet_
  hostname:
    description:
      - Jinja2 expression over the host's variables that gives its name in the inventory.
      - A host that it gives no proper name, or one that another host has too, keeps its name in the
        fleet, with a warning.
    type: str
    default: btfleet_host
"""

EXAMPLES = r"""
# production.btfleet.yml
plugin: btfleet.conntrack.fleet
service: config.example.org:8443
ca: files/config-service-ca.pem
token_file: secrets/operator.token

---
# ansible-playbook -i production.btfleet.yml -e @vault.yml, which has btfleet_operator_token
plugin: btfleet.conntrack.fleet
service: config.example.org:8443
ca: files/config-service-ca.pem
group_by: [state]
hostname: btfleet_host ~ '.example.org'
compose:
  ansible_user: "'deploy'"
  quiet_for: btfleet_as_of - (btfleet_last_seen or btfleet_service_started_at)
groups:
  without_udp6: btfleet_effective | selectattr('key', 'eq', 'CONNTRACK.udpv6_enabled')
    | rejectattr('value') | list | length > 0
keyed_groups:
  - key: btfleet_labels.site
    prefix: site
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/btfleet/inventory
cache_timeout: 300
"""

from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.path import unfrackpath
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet import (
    fleet_inventory,
    fleet_rows,
    fleet_view,
)

PREFIX = "btfleet_"
SUFFIXES = ("btfleet.yml", "btfleet.yaml")
# Raised when rows change, so that those in a cache are not taken for new ones
CACHE_FORMAT = 1
OWN_NAME = f"{PREFIX}host"


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """The inventory plugin."""

    NAME = "btfleet.conntrack.fleet"

    def verify_file(self, path: str) -> bool:
        """Whether a file is meant for it, by its name."""
        name = path.rpartition("/")[2]
        mine = name in SUFFIXES or name.endswith(tuple(f".{suffix}" for suffix in SUFFIXES))
        return bool(super().verify_file(path)) and mine

    def parse(self, inventory: Any, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Fills the inventory; raises AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        rows = self._rows(path, cache)
        variables = {row["host"]: self._variables(row) for row in rows}
        names, warnings = fleet_inventory.names(
            {host: self._name(host, each) for host, each in variables.items()}
        )
        for warning in warnings:
            self.display.warning(warning)
        self._add_states()
        for row in rows:
            if row["host"] in names:
                self._add(names[row["host"]], row, variables[row["host"]])

    def _rows(self, path: str, may_use_cache: bool) -> list[dict[str, Any]]:
        """What the cache has, or the service says."""
        is_cached, key = self.get_option("cache"), self.get_cache_key(path)
        service = self.get_option("service")
        if is_cached and may_use_cache:
            kept = self.cache.get(key)
            if isinstance(kept, dict) and kept.get("format") == [CACHE_FORMAT, service]:
                rows: list[dict[str, Any]] = kept["rows"]
                return rows
        try:
            rows = fleet_view.fetch(self._service(path))
        except fleet_view.FleetViewError as exc:
            raise AnsibleParserError(str(exc)) from None
        if is_cached:
            self.cache[key] = {"format": [CACHE_FORMAT, service], "rows": rows}
        return rows

    def _service(self, path: str) -> fleet_view.Service:
        files = {
            name: self._beside(path, self.get_option(name))
            for name in ("ca", "client_certificate", "client_key")
        }
        return fleet_view.Service(
            address=self.get_option("service"),
            token=self._token(path),
            tls_server_name=self.get_option("tls_server_name") or "",
            deadline=self.get_option("timeout"),
            **files,
        )

    def _token(self, path: str) -> str:
        token, file = self.get_option("token"), self.get_option("token_file")
        if token:
            if self.templar.is_template(token):
                token = self.templar.template(token)
            return str(token)
        if not file:
            raise fleet_view.FleetViewError(
                "no token is given, needed: an operator's, as `token_file` or `token`"
            )
        found = self._beside(path, file)
        try:
            opened = self.loader.get_real_file(found)  # another file where it was in a vault
        except AnsibleError as exc:
            line = " ".join(str(exc).split())
            raise fleet_view.FleetViewError(f"cannot read the token file {found}: {line}") from None
        try:
            return fleet_view.read_token(opened)
        finally:
            self.loader.cleanup_tmp_file(opened)

    def _beside(self, path: str, file: str | None) -> str:
        """A path that may be relative to the inventory file's folder; empty if there is none."""
        return str(unfrackpath(file, basedir=path)) if file else ""

    def _variables(self, row: dict[str, Any]) -> dict[str, Any]:
        """A host's variables. From 2.19 on nothing is a template unless somebody says that it is;
        before, somebody has to say that it is none.
        """
        found: dict[str, Any] = wrap_var({f"{PREFIX}{key}": value for key, value in row.items()})
        return found

    def _name(self, host: str, variables: dict[str, Any]) -> object:
        expression = self.get_option("hostname")
        if expression == OWN_NAME:
            return host
        try:
            return self._compose(expression, variables)
        except Exception as exc:  # noqa: BLE001 - as Constructable does: it can be any
            if self.get_option("strict"):
                raise AnsibleParserError(f"`hostname` gives no name for {host}: {exc}") from None
            return host

    def _group(self, name: str) -> str:
        prefix = self.get_option("group_prefix")
        return str(self.inventory.add_group(self._sanitize_group_name(f"{prefix}{name}")))

    def _add_states(self) -> None:
        """All of these groups, so that a playbook can name them whoever is in them."""
        if "state" not in self.get_option("group_by"):
            return
        groups = {state: self._group(state) for state in fleet_rows.STATES}
        for state, group in groups.items():
            parent = fleet_inventory.parent_of(state)
            if parent:
                self.inventory.add_child(groups[parent], group)

    def _add(self, name: str, row: dict[str, Any], variables: dict[str, Any]) -> None:
        self.inventory.add_host(name)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        for group in fleet_inventory.groups_of(row, self.get_option("group_by")):
            self.inventory.add_child(self._group(group), name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict=strict)
        self._add_host_to_keyed_groups(
            self.get_option("keyed_groups"), variables, name, strict=strict
        )
