# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's settings, `/etc/btfleet/agent.json` (docs/agent.md has them all)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Mapping

from btfleet._config import catalogue, predicates, strict_json
from btfleet._config.errors import ConfigError
from btfleet._config.paths import MAX_ORG
from btfleet.poller.errors import SettingsError
from btfleet.poller.places import PATH, SOCKET

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})")
# sockaddr_un.sun_path, less its zero
_MAX_SOCKET_PATH = 107


@dataclass(frozen=True)
class Settings:
    """What Ansible deploys. `host` and `service` are required."""

    host: str
    service: str
    ca: str = "/etc/btfleet/ca.pem"
    tls_server_name: str = ""
    client_certificate: str = ""
    client_key: str = ""
    token_file: str = "/etc/btfleet/token"  # noqa: S105 a path
    director_root: str = "/etc/btfleet/director-root.json"
    org: int = 1
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    products: tuple[str, ...] = ("CONNTRACK", "AGENT")
    poll_interval_seconds: int = 5
    log_level: str = "info"
    metrics: bool = True
    metrics_listen: str = "127.0.0.1:9463"
    socket: str = SOCKET
    state_folder: str = "/var/lib/btfleet-agent"

    @property
    def facts(self) -> predicates.HostFacts:
        """What predicates are held against."""
        return predicates.HostFacts(self.host, frozenset(self.groups), self.labels)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [ADDRESS]:PORT; raises ValueError."""
    match = _HOST_PORT.fullmatch(text)
    if not match or not 0 < int(match[2]) < 65536:
        raise ValueError(text)
    return match[1].strip("[]"), int(match[2])


def load(path: str = PATH) -> Settings:
    """The settings in a file; raises SettingsError."""
    return parse(read(path, "deploy it with the role btfleet.conntrack.conntracker"), path)


def read(path: str, what_to_do: str, limit: int = 1 << 20) -> bytes:
    """A file that Ansible deploys; raises SettingsError."""
    try:
        with open(path, "rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as exc:
        raise SettingsError(f"cannot read {path} ({exc.strerror}): {what_to_do}") from None
    if len(raw) > limit:
        raise SettingsError(f"{path} has more than {limit} bytes: {what_to_do}")
    return raw


def parse(raw: bytes, name: str) -> Settings:
    """Settings from a file's bytes; raises SettingsError for the first one that is wrong."""
    try:
        data = strict_json.loads(raw, name)
    except ConfigError as exc:
        raise SettingsError(str(exc)) from None
    if not isinstance(data, dict):
        raise SettingsError(f"{name} holds no JSON object: write the settings as one")
    known = {each.name: each for each in fields(Settings)}
    for key in sorted(data):
        if key not in known:
            raise SettingsError(
                f"{name}: unknown setting {ascii(key)[:100]}, known are: {', '.join(sorted(known))}"
            )
    for key in ("host", "service"):
        if key not in data:
            raise SettingsError(f"{name}: {key} is missing, needed: {_CHECKS[key][1]}")
    for key, value in data.items():
        is_good, needed = _CHECKS[key]
        if not is_good(value):
            raise SettingsError(f"{name}: {key} is {ascii(value)[:100]}, needed: {needed}")
    if bool(data.get("client_certificate")) != bool(data.get("client_key")):
        raise SettingsError(
            f"{name}: only one of client_certificate and client_key is set, needed: both or none"
        )
    for key in ("groups", "products"):
        if key in data:
            data[key] = tuple(data[key])
    return Settings(**data)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= predicates.MAX_TEXT


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _is_path_or_empty(value: object) -> bool:
    return value == "" or _is_path(value)


def _is_address(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(split_address(value))
    except ValueError:
        return False


def _is_number(lowest: int, highest: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
    )


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_text(key) and isinstance(text, str) and len(text) <= predicates.MAX_TEXT
        for key, text in value.items()
    )


def _is_products(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(product in catalogue.PRODUCTS for product in value)
        and len(value) == len(set(value))
    )


_PATH = "an absolute path"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "host": (_is_text, "the host's name in the fleet, text of 1 to 256 characters"),
    "service": (_is_address, "HOST:PORT of the config service"),
    "ca": (_is_path, _PATH),
    "tls_server_name": (
        lambda value: isinstance(value, str) and len(value) <= 253,
        "the name in the service's certificate, or empty",
    ),
    "client_certificate": (_is_path_or_empty, f"{_PATH}, or empty"),
    "client_key": (_is_path_or_empty, f"{_PATH}, or empty"),
    "token_file": (_is_path, _PATH),
    "director_root": (_is_path, _PATH),
    "org": (_is_number(0, MAX_ORG), "a whole number from 0"),
    "groups": (_is_names, "a list of names"),
    "labels": (_is_labels, "an object of texts"),
    "products": (_is_products, f"a list, none twice, of {', '.join(catalogue.PRODUCTS)}"),
    "poll_interval_seconds": (_is_number(1, 3600), "a whole number from 1 to 3600"),
    "log_level": (
        lambda value: value in catalogue.LOG_LEVELS,
        "one of " + ", ".join(catalogue.LOG_LEVELS),
    ),
    "metrics": (lambda value: isinstance(value, bool), "true or false"),
    "metrics_listen": (
        lambda value: value == "" or _is_address(value),
        "ADDRESS:PORT, or empty for none",
    ),
    "socket": (
        lambda value: _is_path(value) and len(value.encode()) <= _MAX_SOCKET_PATH,
        f"an absolute path of at most {_MAX_SOCKET_PATH} bytes",
    ),
    "state_folder": (_is_path, _PATH),
}
