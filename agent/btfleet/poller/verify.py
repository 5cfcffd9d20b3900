# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer of the config service may change. No input, no output, no clock of its own.

The service is not trusted: whatever it sends has to be signed by the director's keys, for this
host, whole, and not older than what was seen before. An answer is taken as a whole or refused as a
whole, with an UpdateRefused that names the attack. The order is that of the TUF specification (5.3,
5.6):

1. Each new root is signed by the root before it and by itself, and its version is the next one.
2. Held targets that the newest root's keys no longer vouch for are forgotten, with their version.
   This is how a fleet recovers from versions that somebody with a stolen key drove up.
3. Targets are signed by the newest root's keys, never older than the held ones, never other content
   under the same version, not expired, and delegate to nobody.
4. The configs that are for this host are exactly those that the signed targets say, and each file
   has the signed length and hashes.

Signatures, thresholds and metadata are python-tuf's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Collection, Iterable, Mapping, TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from btfleet._config import custom, paths, predicates, strict_json
from btfleet._config.catalogue import MAX_CONTENT
from btfleet._config.errors import ConfigError
from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    CONFIG_STATUS_OK,
    ClientGetConfigsResponse,
)
from btfleet.poller.errors import UpdateRefused

# python-tuf's own limits (ngclient's UpdaterConfig)
MAX_ROOTS = 256
MAX_ROOT = 512000
MAX_TARGETS = 5000000
# A whole answer. Nothing that a service may send comes near it
MAX_ANSWER = 16 << 20
MAX_VERSION = 2**63 - 1

# What is in force does not end before it has been expired for so long: a host's clock may be wrong
CLOCK_TOLERANCE = 3600

ALGORITHMS = ("sha256", "sha512")

_S = TypeVar("_S", Root, Targets)


@dataclass(frozen=True)
class Host:
    """Whom configs have to be for."""

    facts: predicates.HostFacts
    products: Collection[str]
    org: int

    @property
    def digest(self) -> str:
        """Of all that decides which configs are for the host."""
        data = [
            self.facts.host,
            sorted(self.facts.groups),
            sorted(self.facts.labels.items()),
            sorted(self.products),
            self.org,
        ]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()


@dataclass(frozen=True)
class Config:
    """One verified config."""

    path: paths.ConfigPath
    version: int
    expires: int
    raw: bytes
    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True)
class HeldTargets:
    """The newest targets that were verified."""

    raw: bytes
    version: int
    expires: int
    # What is signed, in canonical form
    content: bytes


@dataclass(frozen=True)
class Trusted:
    """What a host trusts: the chain of roots, oldest first, the targets, and the configs for it.

    `refill` says that the service has to send everything anew, as if no targets were held.
    """

    roots: tuple[bytes, ...]
    root: Root = field(compare=False)
    root_version: int
    targets: HeldTargets | None = None
    configs: Mapping[str, Config] = field(default_factory=dict)
    refill: bool = False

    @property
    def targets_version(self) -> int:
        """As told to the service."""
        return 0 if self.targets is None or self.refill else self.targets.version


@dataclass(frozen=True)
class Stored:
    """What the disk gave back."""

    roots: tuple[bytes, ...]
    targets: bytes | None
    files: Mapping[str, bytes]
    refill: bool
    host_digest: str


# --- steps ------------------------------------------------------------------------------------


def start(first_root: bytes) -> Trusted:
    """From the root that Ansible deployed; raises UpdateRefused if that is not a signed root."""
    metadata = _parse(first_root, "the first root", Root, MAX_ROOT)
    _check_root_keys(metadata.signed)
    _check_signed(metadata.signed, metadata, "root", "the first root")
    return Trusted((first_root,), metadata.signed, metadata.signed.version)


def update(trusted: Trusted, answer: ClientGetConfigsResponse, host: Host, now: int) -> Trusted:
    """The state after an answer at the Unix time `now`; raises UpdateRefused.

    The same object comes back if the answer changes nothing.
    """
    if answer.config_status == CONFIG_STATUS_EXPIRED:
        return let_go(trusted)
    if answer.config_status != CONFIG_STATUS_OK:
        raise UpdateRefused("malformed", f"config_status is {answer.config_status}, known: 0 and 1")
    if not (answer.roots or answer.targets or answer.target_files or answer.client_configs):
        return trusted
    after = _with_roots(trusted, answer.roots)
    if not answer.targets:
        if answer.target_files or answer.client_configs:
            raise UpdateRefused("mix_and_match", "the answer has configs, but no targets")
        return after
    _check_fresh(after.root.expires, f"root version {after.root_version}", now)
    metadata = _verify_targets(after, answer.targets, now)
    configs = _verify_configs(trusted.configs, metadata.signed, answer, host, now)
    return replace(after, targets=_held(answer.targets, metadata), configs=configs, refill=False)


def let_go(trusted: Trusted) -> Trusted:
    """After EXPIRED: no config is in force, and everything seen stays remembered."""
    if trusted.refill and not trusted.configs:
        return trusted
    return replace(trusted, configs={}, refill=True)


def restore(first_root: bytes, stored: Stored, host: Host) -> Trusted:
    """The state from the disk, verified like an answer; raises UpdateRefused.

    Expiry is left to `in_force`: an offline host works on, and a wrong clock loses nothing. A newer
    `first_root` than any that is stored is what Ansible deployed, so it is trusted. Configs that
    are not for this host any more are left out, and asked for anew.
    """
    first = start(first_root)
    trusted = _join(first, stored.roots)
    if stored.targets is None:
        return trusted
    if not _is_vouched(trusted.root, stored.targets):
        # A newer root than the stored ones was deployed, and has other keys
        return trusted
    metadata = _verify_targets(trusted, stored.targets, None)
    configs, left_out = {}, False
    for text, raw in stored.files.items():
        target = metadata.signed.targets.get(text)
        if target is None:
            raise UpdateRefused("unlisted", f"{_shown(text)} is not in the targets")
        path, about = _describe(text, target)
        if _is_for(path, about, host):
            configs[text] = _config(path, about, target, raw)
        else:
            left_out = True
    return replace(
        trusted,
        targets=_held(stored.targets, metadata),
        configs=configs,
        refill=stored.refill or left_out or stored.host_digest != host.digest,
    )


def in_force(trusted: Trusted, now: int) -> dict[str, Config]:
    """The configs that count at the Unix time `now`.

    None once targets or root have been expired for longer than the tolerance: nobody vouches for
    them any more. Nothing is lost by that: they count again when the clock has been put right.
    """
    if frozen(trusted, now):
        return {}
    return {
        path: config
        for path, config in trusted.configs.items()
        if config.expires == 0 or now < config.expires
    }


def frozen(trusted: Trusted, now: int) -> str | None:
    """Why nothing counts any more although the service says that nothing has changed, or None."""
    targets = trusted.targets
    if targets is None:
        return None
    root = (_seconds(trusted.root.expires), f"root version {trusted.root_version}")
    expires, what = min((targets.expires, f"targets version {targets.version}"), root)
    if now < expires + CLOCK_TOLERANCE:
        return None
    return (
        f"freeze: the held {what} expired at {_time(expires)}, now it is {_time(now)}: "
        "put the clock right, or publish anew"
    )


# --- roots ------------------------------------------------------------------------------------


def _with_roots(trusted: Trusted, roots: Collection[bytes]) -> Trusted:
    if len(roots) > MAX_ROOTS:
        raise UpdateRefused(
            "too_many_roots", f"{len(roots)} roots in one answer, needed: at most {MAX_ROOTS}"
        )
    after = trusted
    for raw in roots:
        after = _next_root(after, raw)
    targets = after.targets
    if after is trusted or targets is None or _is_vouched(after.root, targets.raw):
        return after
    return replace(after, targets=None, configs={}, refill=False)


def _next_root(trusted: Trusted, raw: bytes) -> Trusted:
    what = f"the root after version {trusted.root_version}"
    metadata = _parse(raw, what, Root, MAX_ROOT)
    version = metadata.signed.version
    if version <= trusted.root_version:
        raise UpdateRefused(
            "root_rollback", f"root version {version} was sent, {trusted.root_version} is trusted"
        )
    if version != trusted.root_version + 1:
        raise UpdateRefused(
            "root_gap", f"{what} has version {version}, needed: {trusted.root_version + 1}"
        )
    what = f"root version {version}"
    _check_root_keys(metadata.signed)
    _check_signed(trusted.root, metadata, "root", f"{what} (by the keys of the root before)")
    _check_signed(metadata.signed, metadata, "root", f"{what} (by its own keys)")
    return replace(trusted, roots=(*trusted.roots, raw), root=metadata.signed, root_version=version)


def _join(first: Trusted, roots: Iterable[bytes]) -> Trusted:
    """The stored chain, from the first root on, which has to be in it or newer than all of it."""
    by_version = {_parse(raw, "a stored root", Root, MAX_ROOT).signed.version: raw for raw in roots}
    if not by_version or first.root_version > max(by_version):
        return first
    if by_version.get(first.root_version) != first.roots[0]:
        raise UpdateRefused(
            "mix_and_match", f"the stored root version {first.root_version} is not the first root"
        )
    trusted = first
    for version in sorted(by_version):
        if version > first.root_version:
            trusted = _next_root(trusted, by_version[version])
    return trusted


def _check_root_keys(root: Root) -> None:
    """One key under two ids must not count twice towards a threshold."""
    for name, role in root.roles.items():
        values = [
            json.dumps(root.keys[keyid].keyval, sort_keys=True)
            for keyid in role.keyids
            if keyid in root.keys
        ]
        if len(values) != len(set(values)):
            raise UpdateRefused(
                "duplicate", f"root version {root.version} has one key of {name} under two ids"
            )


# --- targets ----------------------------------------------------------------------------------


def _verify_targets(trusted: Trusted, raw: bytes, now: int | None) -> Metadata[Targets]:
    metadata = _parse(raw, "the targets", Targets, MAX_TARGETS)
    version = metadata.signed.version
    what = f"targets version {version}"
    _check_signed(trusted.root, metadata, "targets", what)
    held = trusted.targets
    if held is not None and version < held.version:
        raise UpdateRefused(
            "targets_rollback", f"{what} was sent, {held.version} has been seen already"
        )
    if held is not None and version == held.version and _content(metadata) != held.content:
        raise UpdateRefused("mix_and_match", f"{what} has been seen already with other content")
    if metadata.signed.delegations is not None:
        raise UpdateRefused("delegation", f"{what} delegates, which the director never does")
    if now is not None:
        _check_fresh(metadata.signed.expires, what, now)
    return metadata


def _held(raw: bytes, metadata: Metadata[Targets]) -> HeldTargets:
    signed = metadata.signed
    return HeldTargets(raw, signed.version, _seconds(signed.expires), _content(metadata))


def _is_vouched(root: Root, targets: bytes) -> bool:
    """Whether targets that were verified once are signed by this root's keys too."""
    try:
        metadata = _parse(targets, "the held targets", Targets, MAX_TARGETS)
        _check_signed(root, metadata, "targets", "the held targets")
    except UpdateRefused as exc:
        if exc.kind == "signature":
            return False
        raise
    return True


# --- configs ----------------------------------------------------------------------------------


def _verify_configs(
    held: Mapping[str, Config],
    targets: Targets,
    answer: ClientGetConfigsResponse,
    host: Host,
    now: int,
) -> dict[str, Config]:
    files: dict[str, bytes] = {}
    for file in answer.target_files:
        if file.path in files:
            raise UpdateRefused("duplicate", f"the file {_shown(file.path)} is in the answer twice")
        files[file.path] = file.raw
    listed = set(answer.client_configs)
    if len(listed) != len(answer.client_configs):
        raise UpdateRefused("duplicate", "a path stands twice in the answer's client_configs")
    for text in files:
        if text not in listed:
            raise UpdateRefused("unlisted", f"the file {_shown(text)} was sent, but is not listed")
    configs = {}
    for text in answer.client_configs:
        path = _path(text)
        target = targets.targets.get(text)
        if target is None:
            raise UpdateRefused("unlisted", f"{text} is not in the director's targets")
        _length, about = _describe(text, target)
        if not _is_for(path, about, host):
            raise UpdateRefused("wrong_host", f"{text} is not for {host.facts.host}")
        if about.expires and about.expires <= now - CLOCK_TOLERANCE:
            raise UpdateRefused("freeze", f"{text} expired at {_time(about.expires)}")
        raw = files.get(text)
        if raw is None and text in held:
            # We said that we have it. It is verified anew, whichever version it was
            raw = held[text].raw
        if raw is None:
            raise UpdateRefused("withheld", f"{text} is listed, but its file was not sent")
        configs[text] = _config(path, about, target, raw)
    _check_complete(targets, configs, host, now)
    return configs


def _check_complete(targets: Targets, configs: Mapping[str, Config], host: Host, now: int) -> None:
    """What is signed for this host has to be listed: a service cannot leave a config out."""
    for text, target in targets.targets.items():
        if text in configs:
            continue
        try:
            path, about = _describe(text, target)
        except UpdateRefused:  # of a later version's form, or no host's business
            continue
        ends_soon = about.expires and about.expires <= now + CLOCK_TOLERANCE
        if _is_for(path, about, host) and not ends_soon:
            raise UpdateRefused("withheld", f"{text} is for {host.facts.host}, but is not listed")


def _path(text: str) -> paths.ConfigPath:
    try:
        return paths.parse(text)
    except ConfigError as exc:
        raise UpdateRefused("path", str(exc)) from None


def _describe(text: str, target: TargetFile) -> tuple[paths.ConfigPath, custom.Custom]:
    path = _path(text)
    try:
        return path, custom.parse(target.custom, director=True)
    except ConfigError as exc:
        raise UpdateRefused("malformed", f"{text}: {exc}") from None


def _is_for(path: paths.ConfigPath, about: custom.Custom, host: Host) -> bool:
    return (
        path.org == host.org
        and path.product in host.products
        and predicates.matches(about.predicates, host.facts)
    )


def _is_int(value: object) -> bool:
    """JSON's true and false are numbers to Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def _config(path: paths.ConfigPath, about: custom.Custom, target: TargetFile, raw: bytes) -> Config:
    if not _is_int(target.length) or target.length > MAX_CONTENT:
        raise UpdateRefused(
            "endless_data", f"{path} has {target.length} bytes, needed: at most {MAX_CONTENT}"
        )
    known = {name: value for name, value in target.hashes.items() if name in ALGORITHMS}
    if not known:
        raise UpdateRefused(
            "algorithm",
            f"{path} has only hashes of {', '.join(map(_shown, target.hashes))}, "
            f"needed: any of {', '.join(ALGORITHMS)}",
        )
    try:
        TargetFile(target.length, known, target.path).verify_length_and_hashes(raw)
    except LengthOrHashMismatchError as exc:
        raise UpdateRefused("hash", f"{path}: {_line(exc)}") from None
    return Config(path, about.version, about.expires, raw, known)


# --- metadata ---------------------------------------------------------------------------------


def _parse(raw: bytes, what: str, kind: type[_S], limit: int) -> Metadata[_S]:
    if len(raw) > limit:
        raise UpdateRefused("endless_data", f"{what} has {len(raw)} bytes, needed: at most {limit}")
    try:
        data: Any = strict_json.loads(raw, what, limit)
    except ConfigError as exc:
        raise UpdateRefused("duplicate" if "twice" in str(exc) else "malformed", str(exc)) from None
    try:
        version = data["signed"]["version"]
        metadata: Metadata[_S] = Metadata[_S].from_dict(data)
    except Exception as exc:  # noqa: BLE001 tuf raises more (AttributeError) than it names
        is_twice = "Multiple signatures" in str(exc) or "Nonunique" in str(exc)
        raise UpdateRefused(
            "duplicate" if is_twice else "malformed", f"{what} is no metadata ({_line(exc)})"
        ) from None
    if not isinstance(metadata.signed, kind):
        raise UpdateRefused(
            "mix_and_match", f"{what} is of the type {metadata.signed.type}, needed: {kind.type}"
        )
    if not _is_int(version) or not 1 <= version <= MAX_VERSION:
        raise UpdateRefused(
            "malformed",
            f"{what} has version {ascii(version)[:100]}, needed: a number from 1 to 2^63-1",
        )
    return metadata


def _check_signed(root: Root, metadata: Metadata[Any], role: str, what: str) -> None:
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except Exception as exc:  # noqa: BLE001 whatever fails here, nothing is verified
        raise UpdateRefused("signature", f"{what}: {_line(exc)}") from None


def _content(metadata: Metadata[Any]) -> bytes:
    return bytes(metadata.signed_bytes)


def _check_fresh(expires: datetime, what: str, now: int) -> None:
    if _seconds(expires) <= now:
        raise UpdateRefused(
            "freeze",
            f"{what} expired at {_time(_seconds(expires))}, now it is {_time(now)}: "
            "if this host's clock is right, something keeps newer ones from us",
        )


def _seconds(when: datetime) -> int:
    return int(when.timestamp())


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"the Unix time {seconds}"


def _line(exc: Exception) -> str:
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= 300 else text[:300] + "..."


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 200 else shown[:200] + "..."
