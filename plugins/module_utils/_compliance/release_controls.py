# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of what is installed: release, units, files, leftovers."""

from __future__ import annotations

import shlex
from typing import Callable

from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import UNIT as BOOT

from . import units
from .host import Host
from .units import UnitReading
from .verdict import (
    HIGH,
    LOW,
    MEDIUM,
    NETWORK,
    PLATFORM,
    SECURITY,
    Control,
    Finding,
    judge,
    listed,
    not_applicable,
    unknown,
)
from .wanted import Wanted

_NO_RELEASE = "no release is installed (release.current)"


def current(host: Host, wanted: Wanted) -> Finding:
    """The release in use is the one that is wanted."""
    expected = f"release {wanted.release}" if wanted.release else "a release"
    if host.releases is None:
        return unknown(expected, host.why("releases"))
    found = host.releases.current
    if found is None:
        if not wanted.boot and not wanted.agent:
            return not_applicable("no release is asked for", "none is installed")
        return judge(False, expected, "none is installed", wanted.rollout())
    # With dependencies, a release's name has more to it
    good = (
        wanted.release is None
        or found == wanted.release
        or found.startswith(f"{wanted.release}-cp")
    )
    return judge(good, expected, f"release {found}", wanted.rollout())


def command(host: Host, wanted: Wanted) -> Finding:
    """The command runs the current release."""
    expected = "the command btfleet runs the current release"
    if host.releases is None:
        return unknown(expected, host.why("releases"))
    if host.releases.current is None:
        return not_applicable(expected, _NO_RELEASE)
    good = host.releases.command
    if not good and host.releases.read_only:
        return not_applicable(expected, "/usr/local/bin is on a read-only file system")
    actual = "it does" if good else "/usr/local/bin/btfleet is no link to it"
    return judge(good, expected, actual, wanted.rollout())


def kept(host: Host, wanted: Wanted) -> Finding:
    """No more former releases than are to be kept."""
    expected = f"at most {wanted.keep} former releases"
    if host.releases is None:
        return unknown(expected, host.why("releases"))
    former = [name for name in host.releases.releases if name != host.releases.current]
    actual = f"{len(former)}: {listed(former)}" if former else "none"
    return judge(len(former) <= wanted.keep, expected, actual, wanted.rollout())


def _each_unit(
    host: Host, expected: str, good: str, fix: str, look: Callable[[str, UnitReading], list[str]]
) -> Finding:
    """A control that looks at each unit whose file is there."""
    if host.units is None:
        return unknown(expected, host.why("units"))
    there = {name: unit for name, unit in host.units.items() if unit.is_installed}
    if not there:
        return not_applicable(expected, "no unit is installed (release.boot, agent.unit)")
    found = [line for name, unit in there.items() for line in look(name, unit)]
    return judge(not found, expected, listed(found) or good, fix)


def unit_files(host: Host, wanted: Wanted) -> Finding:
    """Unit files are those of the release."""
    expected = "unit files are those of the current release"
    if host.releases is None or host.releases.current is None:
        return not_applicable(expected, _NO_RELEASE)
    return _each_unit(
        *(host, expected, "they are", wanted.rollout()),
        lambda name, unit: [] if unit.file == unit.packed else [f"{name} is another one"],
    )


def reload(host: Host, _wanted: Wanted) -> Finding:
    """systemd has read the unit files that are there."""
    return _each_unit(
        *(host, "systemd knows the unit files as they are", "it does", "systemctl daemon-reload"),
        lambda name, unit: (
            [f"{name} needs a daemon-reload"] if unit.shown.get("NeedDaemonReload") == "yes" else []
        ),
    )


def hardening(host: Host, wanted: Wanted) -> Finding:
    """What the release's units give away is given away."""
    return _each_unit(
        *(host, "the hardening of the release's units is in force", "it is"),
        "`systemctl revert UNIT` takes drop-ins away (`systemctl cat UNIT` shows them), then "
        f"{wanted.rollout()}",
        lambda name, unit: [f"{name}: {line}" for line in units.weaker(unit)],
    )


def boot(host: Host, wanted: Wanted) -> Finding:
    """The tracker is loaded at the next boot too."""
    expected = "the boot unit is enabled, and has done its work"
    if host.units is None:
        return unknown(expected, host.why("units"))
    unit = host.units.get(BOOT, UnitReading())
    if not wanted.boot and not wanted.agent and not unit.is_installed:
        return not_applicable(expected, "it is not asked for")
    if unit.is_installed and unit.enabled and not unit.active:
        fix = f"systemctl restart {BOOT}; `journalctl -u {BOOT}` says why it failed, if it did"
        return judge(False, expected, unit.state, fix)
    return judge(unit.enabled and unit.active, expected, unit.state, wanted.rollout())


def access(host: Host, _wanted: Wanted) -> Finding:
    """Nobody may change, and only who has to may read."""
    expected = "owners and modes are as they were written"
    if host.access is None:
        return unknown(expected, host.why("access"))
    if not host.access:
        return not_applicable(expected, "there are no files of ours")
    wrong = [one for one in host.access if one.found != one.wanted]
    found = [f"{one.path} is {one.found}, not {one.wanted}" for one in wrong]
    return judge(
        not found,
        expected,
        listed(found) or "they are",
        " && ".join(_repair(one.path, one.wanted) for one in wrong[:5]),
    )


def _repair(path: str, access_text: str) -> str:
    # Somebody copies it into a root's shell, and the agent names the files in its own folder
    path = shlex.quote(path)
    owner, _space, mode = access_text.partition(" ")
    if not mode.isdigit():  # within a release
        return f"chown -h root:root {path} && chmod go-w {path}, once it is known who changed it"
    return f"chown {owner} {path} && chmod {mode} {path}"


def unfinished(host: Host, _wanted: Wanted) -> Finding:
    """Nothing is left of writers that were killed."""
    expected = "nothing is left of writes that were not finished"
    if host.unfinished is None:
        return unknown(expected, host.why("unfinished"))
    paths = list(host.unfinished)
    fix = f"rm -r {' '.join(map(shlex.quote, paths[:5]))}"
    return judge(not paths, expected, listed(paths) or "nothing is", fix)


CONTROLS = (
    Control("release.current", "The release is the wanted one", HIGH, NETWORK, current),
    Control("release.command", "The command runs the release", LOW, NETWORK, command),
    Control("release.kept", "No more old releases than kept", LOW, PLATFORM, kept),
    Control("release.boot", "The tracker is loaded at boot", HIGH, PLATFORM, boot),
    Control("release.units", "Unit files are the release's", MEDIUM, PLATFORM, unit_files),
    Control("release.reload", "systemd knows the unit files", LOW, PLATFORM, reload),
    Control("release.hardening", "The units' hardening is in force", HIGH, SECURITY, hardening),
    Control("files.access", "Files have the right owners and modes", HIGH, SECURITY, access),
    Control("files.unfinished", "Nothing is left of killed writers", LOW, PLATFORM, unfinished),
)
