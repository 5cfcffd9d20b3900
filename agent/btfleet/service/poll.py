# SPDX-License-Identifier: GPL-3.0-or-later
"""What a poll asks for: the checks of a request. Pure."""

from __future__ import annotations

import functools
import re
from typing import Iterable, Mapping, NamedTuple

from btfleet._config import paths
from btfleet._config.errors import ConfigError
from btfleet._config.predicates import HostFacts
from btfleet.config.v1.config_pb2 import (
    Client,
    ClientGetConfigsRequest,
    ConfigState,
    TargetFileMeta,
)

# Far above what a host has to say, far below what would hurt
MAX_PRODUCTS = 32
MAX_GROUPS = 512
MAX_LABELS = 256
MAX_CONFIG_STATES = 16384
MAX_EFFECTIVE = 1024
MAX_CACHED_FILES = 16384
MAX_HASHES = 8
MAX_NAME = 256
MAX_TEXT = 4096

_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){1,64}")


class InvalidPoll(Exception):
    """A field of the request is wrong; the text names it."""


class Poll(NamedTuple):
    """A checked poll. `cached` is length and SHA-256 (hex) of each file that the client has."""

    facts: HostFacts
    products: frozenset[str]
    root_version: int
    targets_version: int
    cached: Mapping[str, tuple[int, str]]


def check(request: ClientGetConfigsRequest) -> Poll:
    """The poll in a request; raises InvalidPoll for the first field that is wrong."""
    if not request.HasField("client"):
        raise InvalidPoll("client is missing, needed: who polls")
    client = request.client
    if not client.HasField("state"):
        raise InvalidPoll("client.state is missing, needed: the versions that the client holds")
    _check_identity(client)
    _check_state(client)
    products = _names("client.products", client.products, MAX_PRODUCTS)
    groups = _names("client.groups", client.groups, MAX_GROUPS)
    _count("client.labels", client.labels, MAX_LABELS)
    labels = dict(client.labels)
    for key, value in labels.items():
        _text("a name in client.labels", key, MAX_NAME)
        _text("a value in client.labels", value, MAX_NAME)
    _check_effective(client)
    return Poll(
        HostFacts(client.id, frozenset(groups), labels),
        frozenset(products),
        client.state.root_version,
        client.state.targets_version,
        _cached(request.cached_target_files),
    )


def _check_identity(client: Client) -> None:
    if not client.id:
        raise InvalidPoll("client.id is empty, needed: the host's name in the fleet")
    _text("client.id", client.id, MAX_NAME)
    kinds = client.is_tracer + client.is_agent + client.is_updater
    if kinds != 1:
        raise InvalidPoll(
            f"{kinds} of client.is_tracer, is_agent and is_updater are set, needed: exactly one"
        )
    if client.is_tracer:
        if not client.client_tracer.language:
            raise InvalidPoll("client.client_tracer.language is empty, needed: the language")
        if client.id == client.client_tracer.runtime_id:
            raise InvalidPoll("client.id equals client_tracer.runtime_id, needed: an id of its own")


def _check_state(client: Client) -> None:
    state = client.state
    if state.root_version < 1:
        raise InvalidPoll(
            f"client.state.root_version is {state.root_version}, needed: 1 or more, "
            "the newest director root that the client trusts"
        )
    _text("client.state.error", state.error, MAX_TEXT)
    _count("client.state.config_states", state.config_states, MAX_CONFIG_STATES)
    for index, config in enumerate(state.config_states):
        _check_config_state(index, config)


def _check_config_state(index: int, config: ConfigState) -> None:
    # One length for the usual case: this runs for every config of every poll
    if len(config.id) + len(config.product) + len(config.path) + len(config.fingerprint) > MAX_NAME:
        where = f"client.state.config_states[{index}]"
        for field in ("id", "product", "fingerprint"):
            _text(f"{where}.{field}", getattr(config, field), MAX_NAME)
        _text(f"{where}.path", config.path, 3 * MAX_NAME)
    if len(config.apply_error) > MAX_TEXT:
        _text(f"client.state.config_states[{index}].apply_error", config.apply_error, MAX_TEXT)


def _check_effective(client: Client) -> None:
    _count("client.effective", client.effective, MAX_EFFECTIVE)
    for index, value in enumerate(client.effective):
        if len(value.key) + len(value.value) + len(value.owner) > MAX_TEXT:
            raise InvalidPoll(
                f"client.effective[{index}] has more than {MAX_TEXT} characters, needed: fewer"
            )


def _cached(files: Iterable[TargetFileMeta]) -> dict[str, tuple[int, str]]:
    found = {}
    _count("cached_target_files", files, MAX_CACHED_FILES)
    for index, file in enumerate(files):
        where = f"cached_target_files[{index}]"
        if (wrong := _wrong_path(file.path)) is not None:
            raise InvalidPoll(f"{where}.path: {wrong}")
        if file.length < 0:
            raise InvalidPoll(f"{where}.length is {file.length}, needed: 0 or more")
        if not 1 <= len(file.hashes) <= MAX_HASHES:
            raise InvalidPoll(
                f"{where}.hashes has {len(file.hashes)} entries, needed: 1 to {MAX_HASHES}"
            )
        sha256 = ""
        for number, each in enumerate(file.hashes):
            if not 1 <= len(each.algorithm) <= 32:
                raise InvalidPoll(f"{where}.hashes[{number}].algorithm is empty or too long")
            if not _HEX.fullmatch(each.hash):
                raise InvalidPoll(f"{where}.hashes[{number}].hash is no hash in hex")
            if each.algorithm == "sha256":
                sha256 = each.hash.lower()
        found[file.path] = (file.length, sha256)
    return found


@functools.lru_cache(maxsize=16384)
def _wrong_path(path: str) -> str | None:
    """What is wrong with a path. A fleet has few of them, and names them in every poll."""
    try:
        paths.parse(path)
    except ConfigError as exc:
        return str(exc)
    return None


def _names(where: str, values: Iterable[str], most: int) -> list[str]:
    _count(where, values, most)
    names = list(values)
    for index, name in enumerate(names):
        if not 0 < len(name) <= MAX_NAME:
            raise InvalidPoll(
                f"{where}[{index}] has {len(name)} characters, needed: 1 to {MAX_NAME}"
            )
    return names


def _count(where: str, values: object, most: int) -> None:
    count = len(values)  # type: ignore[arg-type]  # protobuf's containers have a length
    if count > most:
        raise InvalidPoll(f"{where} has {count} entries, needed: at most {most}")


def _text(where: str, value: str, most: int) -> None:
    if len(value) > most:
        raise InvalidPoll(f"{where} has {len(value)} characters, needed: at most {most}")
