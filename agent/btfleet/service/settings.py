# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of the config service: pure checks, and the reading of the file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Mapping, NamedTuple
from urllib.parse import urlsplit

from btfleet._config import strict_json
from btfleet._config.errors import ConfigError
from btfleet.service.errors import SettingsError

DEFAULT_PATH = "/etc/btfleet/config-service.json"
MAX_ORG = 2**63 - 1

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+):([0-9]{1,5})")


class Roots(NamedTuple):
    """Files with the first root of each repository."""

    director: str
    config: str


class Tls(NamedTuple):
    """PEM files; with a `client_ca`, clients need a certificate of it."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True)
class Settings:
    """docs/remote-config.md says what each one means."""

    repository: str
    roots: Roots
    tls: Tls
    listen: str = "[::]:8443"
    repository_ca: str | None = None
    tokens: str = "/etc/btfleet/tokens.json"
    state_folder: str = "/var/lib/btfleet-config-service"
    org: int = 1
    refresh_interval_seconds: int = 60
    client_ttl_seconds: int = 30
    suggested_interval_seconds: int = 0
    metrics_listen: str = "127.0.0.1:9464"
    enabled: bool = True
    reflection: bool = False


def read(path: str) -> Settings:
    """The settings in a file; raises SettingsError if it is missing or not as it should be."""
    return parse(read_json(path), path)


def read_json(path: str) -> object:
    """Strictly parsed JSON of a file; raises SettingsError."""
    try:
        return strict_json.loads(read_file(path), path, limit=64 << 20)
    except ConfigError as exc:
        raise SettingsError(str(exc)) from None


def read_file(path: str) -> bytes:
    """A file's bytes; raises SettingsError."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise SettingsError(
            f"cannot read {path} ({exc.strerror}): put it there, readable by the config service"
        ) from None


def parse(data: object, name: str) -> Settings:
    """Settings from parsed JSON; raises SettingsError for the first one that is wrong."""
    values = _object(name, data, _CHECKS, ("repository", "roots", "tls"))
    settings = Settings(**values)
    if settings.repository_ca is not None and not settings.repository.startswith("https:"):
        raise SettingsError(
            f"{name}: repository_ca is set and the repository is a folder, "
            "needed: an https:// address, or no repository_ca"
        )
    return settings


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of a checked HOST:PORT."""
    host, _colon, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _object(
    name: str, data: object, checks: Mapping[str, _Check], required: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise SettingsError(f"{name} is a {type(data).__name__}, needed: an object of settings")
    for key in data:
        if key not in checks:
            raise SettingsError(
                f"{name}: unknown setting {ascii(key)[:100]}, "
                f"known are: {', '.join(sorted(checks))}"
            )
    for key in required:
        if key not in data:
            raise SettingsError(f"{name}: {key} is missing, and has no default")
    return {key: checks[key](f"{name}: {key}", value) for key, value in data.items()}


def _refuse(what: str, value: object, needed: str) -> SettingsError:
    return SettingsError(f"{what} is {ascii(value)[:200]}, needed: {needed}")


def _file(what: str, value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise _refuse(what, value, "an absolute path")
    return value


def _optional_file(what: str, value: object) -> str | None:
    return None if value is None else _file(what, value)


def _repository(what: str, value: object) -> str:
    if isinstance(value, str) and value.startswith("https://"):
        try:
            parts = urlsplit(value)
            good = bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
            good = good and parts.port != 0
        except ValueError:
            good = False
        if good:
            return value.rstrip("/")
    elif isinstance(value, str) and os.path.isabs(value) and "\0" not in value:
        return value
    raise _refuse(what, value, "a folder's absolute path, or https://HOST[:PORT][/PATH]")


def _address(what: str, value: object) -> str:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if not isinstance(value, str) or not found or int(found[2]) > 65535:
        raise _refuse(what, value, "HOST:PORT, an IPv6 address in brackets")
    return value


def _optional_address(what: str, value: object) -> str:
    return "" if value == "" else _address(what, value)


def _number(lowest: int, highest: int) -> _Check:
    def check(what: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise _refuse(what, value, "a whole number")
        if not lowest <= value <= highest:
            raise _refuse(what, value, f"a number from {lowest} to {highest}")
        return value

    return check


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refuse(what, value, "true or false")
    return value


def _roots(what: str, value: object) -> Roots:
    checks = {"director": _file, "config": _file}
    return Roots(**_object(what, value, checks, ("director", "config")))


def _tls(what: str, value: object) -> Tls:
    checks = {"certificate": _file, "key": _file, "client_ca": _optional_file}
    return Tls(**_object(what, value, checks, ("certificate", "key")))


_Check = Callable[[str, object], Any]

_CHECKS: dict[str, _Check] = {
    "repository": _repository,
    "roots": _roots,
    "tls": _tls,
    "listen": _address,
    "repository_ca": _optional_file,
    "tokens": _file,
    "state_folder": _file,
    "org": _number(0, MAX_ORG),
    "refresh_interval_seconds": _number(5, 86400),
    "client_ttl_seconds": _number(5, 3600),
    "suggested_interval_seconds": _number(0, 3600),
    "metrics_listen": _optional_address,
    "enabled": _flag,
    "reflection": _flag,
}
# A setting without a check would be one that nobody can give
assert set(_CHECKS) == {field.name for field in fields(Settings)}  # noqa: S101
