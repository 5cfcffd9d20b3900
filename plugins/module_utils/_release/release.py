# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of the agent's tree on a host: unpacked side by side, one of them current.

A release folder is named after its version and its archive's digest and never changes, so that
switching (a rename of the link `current`) is the only step that a running process can notice.
"""

from __future__ import annotations

import compileall
import io
import os
import py_compile
import re
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass, replace
from typing import Callable, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._host import systemd
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    Unit,
    file_digest,
)

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!-]*")

_SCRATCH = ".unpack-"

UNIT = "btfleet-conntracker.service"
# They come and go with the boot unit: what the timer starts repairs what the tracker has missed
TIMER, RECONCILE = "btfleet-reconcile.timer", "btfleet-reconcile.service"
UNITS = (UNIT, TIMER, RECONCILE)

_NO_UNIT = Unit()
# Of a unit whose digest in the release is not known: what is there stays
_KEEP = ""
_UNKNOWN: Mapping[str, str | None] = dict.fromkeys(UNITS, _KEEP)

# Compiles the Python files in a folder, for the place where it will lie
Compiler = Callable[[str, str], None]


class ReleaseError(HostError):
    """An archive, or what lies in its place on the host, is not as it should be."""


@dataclass(frozen=True)
class Layout:
    """Where things lie; fixed but for tests."""

    root: str = "/opt/btfleet"
    command: str = "/usr/local/bin/btfleet"
    units: str = "/etc/systemd/system"

    @property
    def releases(self) -> str:
        """The folder of the release folders."""
        return os.path.join(self.root, "releases")

    @property
    def current(self) -> str:
        """The link to the release in use."""
        return os.path.join(self.root, "current")

    def folder(self, name: str) -> str:
        """A release's folder."""
        return os.path.join(self.releases, name)


@dataclass(frozen=True)
class State:
    """What there is: names of the kept releases, the current one, the command's link, the unit.
    `timer` is the one beside it, `reconcile` the digest of the unit that it starts.

    `read_only` says that the link's folder is on a file system that cannot be written: a host that
    was made so does without the link.
    """

    releases: tuple[str, ...] = ()
    current: str | None = None
    command: bool = False
    unit: str | None = None
    unit_enabled: bool = False
    unit_active: bool = False
    timer: Unit = _NO_UNIT
    reconcile: str | None = None
    read_only: bool = False

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows."""
        return {
            "command": self.command,
            "current": self.current,
            "reconcile": self.reconcile,
            "releases": list(self.releases),
            "timer": self.timer.to_dict(),
            "unit": self.unit,
            "unit_active": self.unit_active,
            "unit_enabled": self.unit_enabled,
        }


def release_name(version: str, sha256: str) -> str:
    """The folder name of a release; raises ReleaseError for what cannot be a version."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"version is {version!r}, needed: letters, digits and . + ! -")
    return f"{version}-{sha256[:12]}"


def has_dependencies(release: str | None) -> bool:
    """Whether a release has the agent's dependencies too (see `host_python.tree_name`)."""
    return release is not None and re.search(r"-[0-9a-f]{12}-cp\d", release) is not None


def plan(
    now: State,
    name: str,
    keep: int,
    packed: Mapping[str, str | None],
    boot: bool = True,
    pinned: frozenset[str] = frozenset(),
) -> State:
    """The state with release `name` current and at most `keep` others, newest first.

    Those that are `pinned` stay in any case. Without `boot` the boot unit is not brought along: a
    host may have no tracker to load. `packed` has the digests of the release's units, None for one
    that it lacks; it is empty where the release is not unpacked yet.
    """
    others = [other for other in now.releases if other not in (name, now.current)]
    if now.current not in (None, name):
        others.insert(0, str(now.current))
    kept = {name, *others[:keep], *pinned}
    # In the order that `read` gives: a release that has yet to be unpacked will be the newest
    known = now.releases if name in now.releases else (name, *now.releases)
    units = dict(_UNKNOWN, **packed) if boot else _UNKNOWN
    timer = units[TIMER]
    return State(
        releases=tuple(other for other in known if other in kept),
        current=name,
        command=now.command or not now.read_only,
        unit=units[UNIT] or now.unit,
        unit_enabled=boot or now.unit_enabled,
        unit_active=boot or now.unit_active,
        timer=_planned(now.timer, timer) if boot else now.timer,
        reconcile=now.reconcile if units[RECONCILE] == _KEEP else units[RECONCILE],
        read_only=now.read_only,
    )


def _planned(now: Unit, packed: str | None) -> Unit:
    """The timer with the boot unit: none where the release has none."""
    if packed is None:
        return _NO_UNIT
    return Unit(now.digest if packed == _KEEP else packed, enabled=True, active=True)


def without_boot_unit(now: State) -> State:
    """The same without the boot unit, and those beside it."""
    return replace(
        now, unit=None, unit_enabled=False, unit_active=False, timer=_NO_UNIT, reconcile=None
    )


def plan_removal(now: State, in_use: bool) -> State:
    """The state without the boot unit, and without releases unless something else is `in_use`."""
    return without_boot_unit(now) if in_use else State(read_only=now.read_only)


def warnings(layout: Layout, state: State) -> list[str]:
    """What a user should know of a state with a release."""
    if state.command:
        return []
    folder, target = os.path.dirname(layout.command), _command_target(layout)
    return [f"{folder} is on a read-only file system, so the command is {target} alone"]


# --- reading ----------------------------------------------------------------------------------


def read(layout: Layout, run: Runner) -> State:
    """The state now; releases newest first (by the time they were unpacked)."""
    units = systemd.read(run, layout.units, UNITS)
    unit = units[UNIT]
    return replace(
        read_releases(layout),
        unit=unit.digest,
        unit_enabled=unit.enabled,
        unit_active=unit.active,
        timer=units[TIMER],
        reconcile=units[RECONCILE].digest,
    )


def read_releases(layout: Layout) -> State:
    """The same without the boot unit."""
    names: list[str] = []
    if os.path.isdir(layout.releases):
        with os.scandir(layout.releases) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
        found.sort(key=lambda entry: (-entry.stat().st_mtime, entry.name))
        names = [entry.name for entry in found]
    current = None
    if os.path.islink(layout.current) and os.path.isdir(layout.current):
        current = os.path.basename(os.path.realpath(layout.current))
    return State(
        releases=tuple(names),
        current=current,
        command=_points_to(layout.command, _command_target(layout)),
        read_only=_is_read_only(os.path.dirname(layout.command)),
    )


def _is_read_only(folder: str) -> bool:
    """Whether its file system is, or the one that it would be made on."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _command_target(layout: Layout) -> str:
    return os.path.join(layout.current, "bin", "btfleet")


def _points_to(link: str, target: str) -> bool:
    return os.path.islink(link) and os.readlink(link) == target


def packed_unit(layout: Layout, name: str, unit: str = UNIT) -> str:
    """Where a release has a unit file."""
    return os.path.join(layout.folder(name), "units", unit)


def packed_units(layout: Layout, name: str) -> dict[str, str | None]:
    """The digests of a release's units, for `plan`; none if it is not unpacked."""
    if not os.path.isdir(layout.folder(name)):
        return {}
    return {unit: file_digest(packed_unit(layout, name, unit)) for unit in UNITS}


# --- doing ------------------------------------------------------------------------------------


def compile_here(folder: str, place: str) -> None:
    """Compiles with the Python that runs us."""
    compileall.compile_dir(
        folder,
        quiet=2,
        ddir=place,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def unpack(layout: Layout, archive: bytes, name: str, compile_all: Compiler = compile_here) -> None:
    """Unpacks an archive as release `name`; whatever fails, no half a release is left.

    Raises ReleaseError if the archive is damaged or holds anything but plain files under one
    folder.
    """
    os.makedirs(layout.releases, mode=0o755, exist_ok=True)
    for left in os.listdir(layout.releases):
        if left.startswith(_SCRATCH):  # of an unpacking that was killed
            shutil.rmtree(layout.folder(left))
    scratch = tempfile.mkdtemp(dir=layout.releases, prefix=_SCRATCH)
    try:
        try:
            with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
                for member in packed:
                    _write_member(packed, member, scratch)
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as exc:
            raise ReleaseError(f"the release archive is damaged ({exc}): send it again") from None
        tops = os.listdir(scratch)
        needed = (os.path.join("bin", "btfleet"), os.path.join("units", UNIT))
        if len(tops) != 1 or not all(
            os.path.isfile(os.path.join(scratch, tops[0], name)) for name in needed
        ):
            raise ReleaseError(
                f"the archive is no release: it has no folder with {' and '.join(needed)} in it"
            )
        top = os.path.join(scratch, tops[0])
        # Now, and by content: later the folder is read-only to those who run it
        compile_all(os.path.join(top, "lib"), os.path.join(layout.folder(name), "lib"))
        # Everybody may run and read it; nothing secret is in it
        os.chmod(top, 0o755)  # noqa: S103
        os.rename(top, layout.folder(name))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_member(packed: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    parts = member.name.split("/")
    if not member.isfile() or ".." in parts or member.name.startswith("/"):
        raise ReleaseError(
            f"the archive holds {member.name!r}, which is no plain file below one folder: "
            "build it with `make release`"
        )
    path = os.path.join(folder, *parts)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    source = packed.extractfile(member)
    with open(path, "wb") as stream:
        if source is not None:
            shutil.copyfileobj(source, stream)
        os.fchmod(stream.fileno(), 0o755 if member.mode & 0o100 else 0o644)


def link_atomically(target: str, link: str) -> None:
    """Makes or redirects a link in one step; raises ReleaseError if something else stands there."""
    if os.path.lexists(link) and not os.path.islink(link):
        raise ReleaseError(f"{link} is there and no link of ours: move it away")
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    temporary = f"{link}.btfleet-new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.replace(temporary, link)


def reach(layout: Layout, run: Runner, now: State, after: State) -> None:
    """From `now` to `after`; the release has to be unpacked already."""
    name = str(after.current)
    if now.current != name:
        link_atomically(os.path.join("releases", name), layout.current)
    if after.command and not now.command:
        link_atomically(_command_target(layout), layout.command)
    former, wanted = _files(now), _files(after)
    gone = tuple(unit for unit in UNITS if former[unit] and not wanted[unit])
    systemd.remove(run, layout.units, gone)
    changed = [unit for unit in UNITS if wanted[unit] and wanted[unit] != former[unit]]
    for unit in changed:
        with open(packed_unit(layout, name, unit), "rb") as stream:
            systemd.write(layout.units, unit, stream.read())
    if changed:
        systemd.call(run, "daemon-reload")
    for unit, enable, start in (
        (
            UNIT,
            after.unit_enabled and not now.unit_enabled,
            after.unit_active and not now.unit_active,
        ),
        (
            TIMER,
            after.timer.enabled and not now.timer.enabled,
            after.timer.active and not now.timer.active,
        ),
    ):
        if enable:
            systemd.call(run, "enable", "--quiet", unit)
        if start:
            systemd.call(run, "start", unit)
    for old in set(now.releases) - set(after.releases):
        shutil.rmtree(layout.folder(old))


def _files(state: State) -> dict[str, str | None]:
    """The digests of the unit files in a state."""
    return {UNIT: state.unit, TIMER: state.timer.digest, RECONCILE: state.reconcile}


def remove(layout: Layout, run: Runner, now: State, after: State) -> None:
    """Takes the boot unit away again, and all the rest if nothing else runs it (`plan_removal`)."""
    if now.command and now.read_only and after.current is None:
        raise ReleaseError(
            f"{layout.command} is on a read-only file system: mount it writable to have it removed"
        )
    systemd.remove(run, layout.units, UNITS)
    if after.current is not None:
        return
    if now.command:
        os.unlink(layout.command)
    shutil.rmtree(layout.root, ignore_errors=True)
