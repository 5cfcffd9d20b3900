# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The poller agent on a host: its account, its files, its units. The release is `release`'s.

The agent reads token, CA and director root anew by itself; it is restarted only for another
release, unit or settings. That a restart is due is noted before anything is changed, so that a run
that is killed in between does not leave an agent on old code.
"""

from __future__ import annotations

import grp
import json
import os
import shutil
from dataclasses import dataclass, field
from typing import Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._host import (
    accounts,
    managed_files,
    systemd,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.managed_files import File
from ansible_collections.btfleet.conntrack.plugins.module_utils._host.systemd import (
    HostError,
    Unit,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.bpf.bpffs import FOLDER
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.loader import access
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    Layout as ReleaseLayout,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import packed_unit

ACCOUNT = access.GROUP

UNIT = "btfleet-agent.service"
WATCH = "btfleet-apply.path"
APPLY = "btfleet-apply.service"
UNITS = (UNIT, WATCH, APPLY)
# The loader's unit is started by the one that watches
STARTED = (WATCH, UNIT)

SETTINGS, TOKEN, CA, ROOT = "agent.json", "token", "ca.pem", "director-root.json"
FILES = (SETTINGS, TOKEN, CA, ROOT)
ACCESS = managed_files.access_of(ACCOUNT)

# What each file is for, and how to give it
_NEEDED = {
    TOKEN: "the host's token (token)",
    CA: "the CA of the config service (ca)",
    ROOT: "the first root of the director (director_root)",
}

_CHECK = """\
import sys
sys.path.insert(0, sys.argv[1])
from btfleet.poller.errors import SettingsError
from btfleet.poller.settings import parse
try:
    parse(sys.argv[2].encode(), sys.argv[3])
except SettingsError as exc:
    sys.exit(str(exc))
"""


@dataclass(frozen=True)
class Layout:
    """Where things lie; fixed but for tests."""

    etc: str = "/etc/btfleet"
    units: str = "/etc/systemd/system"
    state: str = "/var/lib/btfleet-agent"
    runtime: str = "/run/btfleet-agent"
    pins: str = FOLDER

    @property
    def restart_due(self) -> str:
        """A mark that is there while a restart is due. It goes with a reboot, which is one."""
        return self.runtime + ".restart"

    @property
    def wanted(self) -> str:
        """What the agent asks of the loader."""
        return os.path.join(self.state, "wanted.json")

    def file(self, name: str) -> str:
        """One of FILES."""
        return os.path.join(self.etc, name)


@dataclass(frozen=True)
class State:
    """What of the agent is on a host. `settings` is what agent.json says, for the diff."""

    account: bool = False
    files: Mapping[str, File] = field(default_factory=lambda: dict.fromkeys(FILES, File()))
    units: Mapping[str, Unit] = field(default_factory=lambda: dict.fromkeys(UNITS, Unit()))
    leftovers: bool = False
    restart_due: bool = False
    pins_right: bool = True
    settings: object = field(default=None, compare=False)

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows. Of the token it shows whether it is there, and no more."""
        files = {name: one._asdict() for name, one in self.files.items()}
        files[TOKEN]["digest"] = "not shown" if self.files[TOKEN].digest else None
        files[SETTINGS]["content"] = self.settings
        return {
            "account": self.account,
            "files": files,
            "pins_right": self.pins_right,
            "restart_due": self.restart_due,
            "units": {name: unit.to_dict() for name, unit in self.units.items()},
        }


def difference(before: State, after: State) -> tuple[dict[str, object], dict[str, object]]:
    """Both in the form of a diff, which says that there is another token without showing it."""
    shown = after.to_dict()
    if before.files[TOKEN].digest not in (None, after.files[TOKEN].digest):
        files = shown["files"]
        if isinstance(files, dict) and after.files[TOKEN].digest:
            files[TOKEN]["digest"] = "another one, not shown"
    return before.to_dict(), shown


def plan(
    now: State, contents: Mapping[str, bytes | None], unit_digests: Mapping[str, str | None]
) -> State:
    """The state with the agent running. Raises HostError if a file is missing and not given.

    `contents` has None for a file that stays as it is, and `unit_digests` None for a unit that is
    not known yet (in a dry run the release is not unpacked).
    """
    files = {}
    for name in FILES:
        content = contents.get(name)
        digest = now.files[name].digest if content is None else managed_files.digest(content)
        if digest is None:
            raise HostError(
                f"{name} is not on the host, needed: {_NEEDED.get(name, name)} for its first run"
            )
        files[name] = File(digest, ACCESS)
    settings = contents.get(SETTINGS)
    return State(
        account=True,
        files=files,
        units={
            name: Unit(
                unit_digests.get(name) or now.units[name].digest,
                name in STARTED or now.units[name].enabled,
                name in STARTED or now.units[name].active,
            )
            for name in UNITS
        },
        leftovers=now.leftovers,
        settings=now.settings if settings is None else json.loads(settings),
    )


def needs_restart(before: State, after: State, another_release: bool) -> bool:
    """Whether a running agent has to be restarted to be as planned."""
    return (
        before.restart_due
        or another_release
        or before.files[SETTINGS].digest != after.files[SETTINGS].digest
        or before.units[UNIT].digest != after.units[UNIT].digest
    )


# --- reading ------------------------------------------------------------------------------------


def read(layout: Layout, run: Runner) -> State:
    """The state now."""
    return State(
        account=accounts.exists(ACCOUNT),
        files={name: managed_files.read(layout.file(name)) for name in FILES},
        units=systemd.read(run, layout.units, UNITS),
        leftovers=any(os.path.lexists(path) for path in (layout.state, layout.runtime)),
        restart_due=os.path.lexists(layout.restart_due),
        pins_right=not access.wrong(layout.pins, access.group_id()),
        settings=_read_settings(layout.file(SETTINGS)),
    )


def _read_settings(path: str) -> object:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


# --- doing --------------------------------------------------------------------------------------


def check_release(releases: ReleaseLayout, name: str) -> None:
    """Raises HostError if release `name` is one without an agent."""
    for unit in UNITS:
        if not os.path.isfile(packed_unit(releases, name, unit)):
            raise HostError(f"the release {name} has no {unit}: take a newer release (src)")


def check_settings(
    releases: ReleaseLayout, run: Runner, name: str, interpreter: str, settings: bytes
) -> None:
    """Has the agent's own code in release `name` check the settings; raises HostError."""
    library = os.path.join(releases.folder(name), "lib")
    arguments = [library, settings.decode(), SETTINGS]
    code, _output, errors = run([interpreter, "-IS", "-c", _CHECK, *arguments])
    if code != 0:
        lines = errors.strip().splitlines()
        raise HostError(
            lines[-1] if lines else f"the settings cannot be checked (exit code {code})"
        )


def note_restart(layout: Layout) -> None:
    """To be called before anything is changed that the agent is restarted for."""
    os.makedirs(os.path.dirname(layout.restart_due), exist_ok=True)
    with open(layout.restart_due, "wb"):
        pass


def reach(
    layout: Layout,
    releases: ReleaseLayout,
    run: Runner,
    before: State,
    after: State,
    contents: Mapping[str, bytes | None],
    release: str,
    restart: bool,
) -> None:
    """From `before` to `after`; `release` has to be the current one already."""
    if not before.account:
        accounts.make(run, ACCOUNT)
    gid = grp.getgrnam(ACCOUNT).gr_gid
    access.grant(layout.pins, gid)
    paths = {name: layout.file(name) for name in FILES}
    managed_files.put(paths, before.files, after.files, contents, gid)
    packed = {name: packed_unit(releases, release, name) for name in UNITS}
    systemd.install(run, layout.units, before.units, packed, STARTED)
    if restart and before.units[UNIT].active:
        systemd.call(run, "restart", UNIT)
    for name in STARTED:
        if not before.units[name].active:
            systemd.call(run, "start", name)
    if os.path.lexists(layout.restart_due):
        os.unlink(layout.restart_due)


def remove(layout: Layout, run: Runner) -> None:
    """Takes the agent away, and brings the base back into force if it asked for anything else."""
    if os.path.lexists(os.path.join(layout.units, UNIT)):
        systemd.call(run, "stop", UNIT)
    if os.path.lexists(layout.wanted):
        os.unlink(layout.wanted)
        # What runs may run on, if the base does not load: the role says so where it is asked to
        systemd.call(run, "start", APPLY, may_fail=True)
    systemd.remove(run, layout.units, UNITS)
    for name in FILES:
        if os.path.lexists(layout.file(name)):
            os.unlink(layout.file(name))
    if os.path.isdir(layout.etc) and not os.listdir(layout.etc):
        os.rmdir(layout.etc)
    for folder in (layout.state, layout.runtime):
        shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(layout.restart_due):
        os.unlink(layout.restart_due)
    accounts.remove(run, ACCOUNT)
    access.grant(layout.pins, access.group_id())
