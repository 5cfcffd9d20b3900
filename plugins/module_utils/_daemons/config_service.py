# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config service on a host: its account, its files, its unit. The release is `release`'s.

The service reads certificates and tokens anew by itself; it is restarted only for another release,
unit or settings. That a restart is due is noted before anything is changed, so that a run that is
killed in between does not leave a service on old code.
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
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import (
    Layout as ReleaseLayout,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import packed_unit

ACCOUNT = "btfleet-config"
UNIT = "btfleet-config-service.service"

SETTINGS, TOKENS = "config-service.json", "tokens.json"
CERTIFICATE, KEY, CLIENT_CA = "certificate.pem", "key.pem", "client-ca.pem"
DIRECTOR_ROOT, CONFIG_ROOT, REPOSITORY_CA = (
    "director-root.json",
    "config-root.json",
    "repository-ca.pem",
)
NEEDED = {
    SETTINGS: "the settings",
    TOKENS: "the hosts' tokens (tokens)",
    CERTIFICATE: "the certificate (certificate)",
    KEY: "its key (key)",
    DIRECTOR_ROOT: "the director's first root (director_root)",
    CONFIG_ROOT: "the config repository's first root (config_root)",
}
# There only where they are given
OPTIONAL = (CLIENT_CA, REPOSITORY_CA)
FILES = (*NEEDED, *OPTIONAL)
ACCESS = managed_files.access_of(ACCOUNT)


@dataclass(frozen=True)
class Layout:
    """Where things lie; fixed but for tests."""

    etc: str = "/etc/btfleet"
    units: str = "/etc/systemd/system"
    state: str = "/var/lib/btfleet-config-service"
    run: str = "/run"

    @property
    def folder(self) -> str:
        """The folder of all files but the settings."""
        return os.path.join(self.etc, "config-service")

    @property
    def restart_due(self) -> str:
        """A mark that is there while a restart is due. It goes with a reboot, which is one."""
        return os.path.join(self.run, "btfleet-config-service.restart")

    def file(self, name: str) -> str:
        """One of FILES."""
        return os.path.join(self.etc if name == SETTINGS else self.folder, name)


@dataclass(frozen=True)
class State:
    """What of the service is on a host. `settings` is what its file says, for the diff."""

    account: bool = False
    files: Mapping[str, File] = field(default_factory=lambda: dict.fromkeys(FILES, File()))
    unit: Unit = field(default_factory=Unit)
    leftovers: bool = False
    restart_due: bool = False
    settings: object = field(default=None, compare=False)

    def to_dict(self) -> dict[str, object]:
        """The form that a diff shows. Of the key it shows whether it is there, and no more."""
        files = {name: one._asdict() for name, one in self.files.items()}
        files[KEY]["digest"] = "not shown" if self.files[KEY].digest else None
        files[SETTINGS]["content"] = self.settings
        return {
            "account": self.account,
            "files": files,
            "restart_due": self.restart_due,
            "unit": self.unit.to_dict(),
        }


def difference(before: State, after: State) -> tuple[dict[str, object], dict[str, object]]:
    """Both in the form of a diff, which says that there is another key without showing it."""
    shown = after.to_dict()
    old, new, files = before.files[KEY].digest, after.files[KEY].digest, shown["files"]
    if isinstance(files, dict) and old and new and old != new:
        files[KEY]["digest"] = "another one, not shown"
    return before.to_dict(), shown


def settings(layout: Layout, options: Mapping[str, object]) -> bytes:
    """config-service.json. `options` are settings by name, None where the service has a default;
    `client_ca` and `repository_ca` say whether there is such a file.
    """
    tls = {"certificate": layout.file(CERTIFICATE), "key": layout.file(KEY)}
    if options.get("client_ca"):
        tls["client_ca"] = layout.file(CLIENT_CA)
    said = {
        name: value
        for name, value in options.items()
        if value is not None and name not in ("client_ca", "repository_ca")
    }
    if options.get("repository_ca"):
        said["repository_ca"] = layout.file(REPOSITORY_CA)
    said["roots"] = {
        "config": layout.file(CONFIG_ROOT),
        "director": layout.file(DIRECTOR_ROOT),
    }
    said.update(tls=tls, tokens=layout.file(TOKENS), state_folder=layout.state)
    return (json.dumps(said, indent=2, sort_keys=True) + "\n").encode()


def plan(now: State, contents: Mapping[str, bytes | None], unit_digest: str | None) -> State:
    """The state with the service running. Raises HostError if a file is missing and not given.

    `contents` has None for a file that stays as it is, or that is optional and not wanted;
    `unit_digest` is None where the unit is not known yet (a dry run does not unpack the release).
    """
    files = {}
    for name in FILES:
        content = contents.get(name)
        digest = now.files[name].digest if content is None else managed_files.digest(content)
        if content is None and name in OPTIONAL:
            files[name] = File()
            continue
        if digest is None:
            raise HostError(f"{name} is not on the host, needed: {NEEDED[name]} for its first run")
        files[name] = File(digest, ACCESS)
    said = contents.get(SETTINGS)
    return State(
        account=True,
        files=files,
        unit=Unit(unit_digest or now.unit.digest, enabled=True, active=True),
        leftovers=now.leftovers,
        settings=now.settings if said is None else json.loads(said),
    )


def needs_restart(before: State, after: State, another_release: bool) -> bool:
    """Whether a running service has to be restarted to be as planned."""
    return (
        before.restart_due
        or another_release
        or before.files[SETTINGS].digest != after.files[SETTINGS].digest
        or before.unit.digest != after.unit.digest
    )


# --- reading ------------------------------------------------------------------------------------


def read(layout: Layout, run: Runner) -> State:
    """The state now."""
    return State(
        account=accounts.exists(ACCOUNT),
        files={name: managed_files.read(layout.file(name)) for name in FILES},
        unit=systemd.read(run, layout.units, (UNIT,))[UNIT],
        leftovers=os.path.lexists(layout.state),
        restart_due=os.path.lexists(layout.restart_due),
        settings=_read_settings(layout.file(SETTINGS)),
    )


def is_installed(units: str) -> bool:
    """Whether a host has the service, whose release must not go then."""
    return os.path.lexists(os.path.join(units, UNIT))


def _read_settings(path: str) -> object:
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return None


# --- doing --------------------------------------------------------------------------------------


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
    os.makedirs(layout.folder, mode=0o755, exist_ok=True)
    paths = {name: layout.file(name) for name in FILES if after.files[name].digest}
    managed_files.put(paths, before.files, after.files, contents, gid)
    for name in set(FILES) - set(paths):
        if before.files[name].digest:
            os.unlink(layout.file(name))
    systemd.install(
        run,
        layout.units,
        {UNIT: before.unit},
        {UNIT: packed_unit(releases, release, UNIT)},
        (UNIT,),
    )
    if before.unit.active and restart:
        systemd.call(run, "restart", UNIT)
    elif not before.unit.active:
        systemd.call(run, "start", UNIT)
    if os.path.lexists(layout.restart_due):
        os.unlink(layout.restart_due)


def note_restart(layout: Layout) -> None:
    """To be called before anything is changed that the service is restarted for."""
    os.makedirs(layout.run, exist_ok=True)
    with open(layout.restart_due, "wb"):
        pass


def remove(layout: Layout, run: Runner) -> None:
    """Takes the service away, with its files, state and account."""
    systemd.remove(run, layout.units, (UNIT,))
    for name in FILES:
        if os.path.lexists(layout.file(name)):
            os.unlink(layout.file(name))
    for folder in (layout.folder, layout.etc):
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
    shutil.rmtree(layout.state, ignore_errors=True)
    if os.path.lexists(layout.restart_due):
        os.unlink(layout.restart_due)
    accounts.remove(run, ACCOUNT)
