# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the state that is there to the state that was asked for: planning, and doing it."""

from __future__ import annotations

from dataclasses import dataclass

from . import object_file, telemetry
from .errors import AssetReadError, InvalidSpec, TrackerError
from .spec import Spec
from .tracker import ASSET, Loaded, Tracker

STATES = ("installed", "loaded", "unloaded", "absent")


@dataclass(frozen=True)
class State:
    """A host as far as the object goes: files on disk, and what the kernel holds.

    `spec_file` is None if there is none, `object_file` the digest of an undamaged object file
    for that spec. `loaded` is the spec in force. `drift` has what is not as it was loaded.
    """

    spec_file: dict[str, object] | None = None
    object_file: str | None = None
    loaded: dict[str, object] | None = None
    drift: tuple[str, ...] = ()
    files: bool = False

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows."""
        return {
            "drift": list(self.drift),
            "loaded": self.loaded,
            "object_file": self.object_file,
            "spec_file": self.spec_file,
        }


def plan(now: State, wanted: str, spec: Spec | None) -> State:
    """The state after `wanted` (one of STATES) is reached; `spec` is needed for the first two."""
    if wanted == "absent":
        return State()
    if wanted == "unloaded":
        return State(now.spec_file, now.object_file, None, (), now.files)
    if spec is None:
        raise InvalidSpec(f"state {wanted} needs a spec")
    settings = spec.to_dict()
    if wanted == "installed":
        return State(settings, spec.object_sha256, now.loaded, now.drift, files=True)
    return State(settings, spec.object_sha256, settings, (), files=True)


def read(tracker: Tracker) -> tuple[State, Loaded]:
    """The state now. A damaged spec file counts as none: it is to be replaced."""
    try:
        spec = tracker.store.read_spec()
    except InvalidSpec:
        spec = None
    loaded = tracker.read()
    record_spec = loaded.record["spec"] if loaded.record else None
    has_object = spec is not None and tracker.store.has_object(spec.object_sha256)
    return State(
        spec_file=spec.to_dict() if spec else None,
        object_file=spec.object_sha256 if spec and has_object else None,
        loaded=record_spec if isinstance(record_spec, dict) else None,
        drift=loaded.drift,
        files=tracker.store.exists(),
    ), loaded


def reach(tracker: Tracker, wanted: str, spec: Spec | None, content: bytes | None) -> None:
    """Does it. Raises a TrackerError, with spec file and tracker as they were.

    `content` is the object's bytes, where it is not in the store yet.
    """
    if wanted == "absent":
        tracker.unload()
        tracker.store.remove()
        tracker.forget_lock()
    elif wanted == "unloaded":
        tracker.unload()
    elif spec is not None:
        _install_and_load(tracker, wanted, spec, content)


def _install_and_load(tracker: Tracker, wanted: str, spec: Spec, content: bytes | None) -> None:
    store = tracker.store
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
        if wanted == "loaded":
            # It counts its own result. The spec file follows: what boots next is what has been
            # loaded once
            tracker.load(spec)
        store.write_spec(spec)
    finally:
        _prune(tracker)


def _prune(tracker: Tracker) -> None:
    """Keeps the objects of the spec file and of the spec in force."""
    try:
        on_disk = tracker.store.read_spec()
        loaded = tracker.read().record
    except (TrackerError, OSError):
        return
    keep = {on_disk.object_sha256} if on_disk else set()
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


def check(tracker: Tracker, spec: Spec, content: bytes | None) -> None:
    """Raises what `reach` would refuse before it touches the kernel; changes nothing."""
    if content is None:
        content = tracker.store.read_object(spec.object_sha256)
    checked_object(content, spec)
    tracker.check(spec)
