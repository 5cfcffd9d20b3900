# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the state that is there to the state that was asked for: planning, and doing it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._kernel.bpf import object_file
from .._kernel.errors import AssetReadError, InvalidSpec, TrackerError
from .._kernel.loader import access, telemetry
from .._kernel.loader.load import ASSET, Tracker
from .._kernel.loader.state import Loaded
from .._kernel.spec import Spec
from . import effective_load, remote
from .remote import Effective

STATES = ("installed", "loaded", "unloaded", "absent")


@dataclass(frozen=True)
class State:
    """A host as far as the object goes: files on disk, and what the kernel holds.

    `spec_file` is None if there is none, `object_file` the digest of an undamaged object file
    for that spec. `loaded` is the spec in force. `drift` has what is not as it was loaded.
    `remote_keys` are what remote config may override.
    """

    spec_file: dict[str, object] | None = None
    object_file: str | None = None
    loaded: dict[str, object] | None = None
    drift: tuple[str, ...] = ()
    files: bool = False
    remote_keys: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows."""
        return {
            "drift": list(self.drift),
            "loaded": self.loaded,
            "object_file": self.object_file,
            "remote_config_keys": list(self.remote_keys),
            "spec_file": self.spec_file,
        }


@dataclass(frozen=True)
class Wish:
    """What a host should be brought to. `spec` is the base, `effective` what has to be in force
    with remote config over it. `remote_keys` None leaves remote.json as it is.
    """

    spec: Spec
    effective: Effective
    remote_keys: frozenset[str] | None = None

    @classmethod
    def of(cls, tracker: Tracker, spec: Spec, remote_keys: frozenset[str] | None = None) -> Wish:
        """With what remote config wants on this host now."""
        effective = effective_load.choose(tracker.store, spec, remote_keys)
        return cls(spec, effective, remote_keys)


def plan(now: State, wanted: str, wish: Wish | None) -> State:
    """The state after `wanted` (one of STATES) is reached; a wish is needed for the first two."""
    if wanted == "absent":
        return State()
    if wanted == "unloaded":
        return replace(now, loaded=None, drift=())
    if wish is None:
        raise InvalidSpec(f"state {wanted} needs a spec")
    keys = now.remote_keys if wish.remote_keys is None else tuple(sorted(wish.remote_keys))
    installed = replace(
        now,
        spec_file=wish.spec.to_dict(),
        object_file=wish.spec.object_sha256,
        files=True,
        remote_keys=keys,
    )
    if wanted == "installed":
        return installed
    return replace(installed, loaded=wish.effective.spec.to_dict(), drift=())


def read(tracker: Tracker) -> tuple[State, Loaded]:
    """The state now. A damaged spec file counts as none: it is to be replaced."""
    try:
        spec = tracker.store.read_spec()
    except InvalidSpec:
        spec = None
    loaded = tracker.read()
    record_spec = loaded.record["spec"] if loaded.record else None
    has_object = spec is not None and tracker.store.has_object(spec.object_sha256)
    try:
        remote_keys = tuple(sorted(remote.read_allowed(tracker.store)))
    except InvalidSpec:
        remote_keys = ("(damaged)",)
    return State(
        spec_file=spec.to_dict() if spec else None,
        object_file=spec.object_sha256 if spec and has_object else None,
        loaded=record_spec if isinstance(record_spec, dict) else None,
        drift=loaded.drift + access.describe(access.wrong(tracker.folder, access.group_id())),
        files=tracker.store.exists(),
        remote_keys=remote_keys,
    ), loaded


def reach(
    tracker: Tracker,
    wanted: str,
    wish: Wish | None,
    content: bytes | None,
    pinned: frozenset[str] = frozenset(),
) -> Effective | None:
    """Does it; returns what is in force, where it was loaded. Raises a TrackerError, with spec
    file and tracker as they were.

    `content` is the object's bytes, where it is not in the store yet. `pinned` has the digests of
    objects that somebody else needs; others that are not in use are removed.
    """
    if wanted == "absent":
        tracker.unload()
        tracker.store.remove()
        remote.forget_answer(tracker.store)
        tracker.forget_lock()
    elif wanted == "unloaded":
        tracker.unload()
    elif wish is not None:
        return _install_and_load(tracker, wanted, wish, content, pinned)
    return None


def _install_and_load(
    tracker: Tracker, wanted: str, wish: Wish, content: bytes | None, pinned: frozenset[str]
) -> Effective | None:
    store, spec = tracker.store, wish.spec
    try:
        try:
            if content is not None:
                parsed = checked_object(content, spec)
                if wanted == "loaded":
                    tracker.require_bpffs()
                store.write_object(parsed.content)
            elif wanted == "installed":
                store.read_object(spec.object_sha256)
        except AssetReadError:
            telemetry.count(store, ASSET, "asset_read")
            raise
        if wish.remote_keys is not None:
            remote.write_allowed(store, wish.remote_keys)
        if wanted != "loaded":
            store.write_spec(spec)
            return None
        # It counts its own result. The spec file follows: what boots next is what has been
        # loaded once
        effective_load.bring(tracker, spec)
        store.write_spec(spec)
        return effective_load.settle(tracker, effective_load.bring).effective
    finally:
        prune(tracker, pinned)


def prune(tracker: Tracker, pinned: frozenset[str] = frozenset()) -> None:
    """Keeps the objects of the spec file, of the spec in force, and those that are `pinned`."""
    try:
        on_disk = tracker.store.read_spec()
        loaded = tracker.read().record
    except (TrackerError, OSError):
        return
    keep = set(pinned)
    if on_disk:
        keep.add(on_disk.object_sha256)
    if loaded and isinstance(loaded["spec"], dict):
        keep.add(str(loaded["spec"].get("object_sha256")))
    tracker.store.prune(keep)


def checked_object(content: bytes, spec: Spec) -> object_file.ObjectFile:
    """The object, if it is sound and the one that the spec pins; raises AssetReadError."""
    parsed = object_file.parse(content, "the object")
    if parsed.sha256 != spec.object_sha256:
        raise AssetReadError(
            f"the object has sha256 {parsed.sha256}, needed: {spec.object_sha256} (give the file "
            "that this digest was made from, or correct the digest)"
        )
    return parsed


def check(tracker: Tracker, wish: Wish, content: bytes | None) -> None:
    """Raises what `reach` would refuse before it touches the kernel; changes nothing."""
    if content is None:
        content = tracker.store.read_object(wish.spec.object_sha256)
    checked_object(content, wish.spec)
    tracker.check(wish.spec)
