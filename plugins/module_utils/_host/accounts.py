# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System accounts that own nothing and cannot log in: a user and the group of the same name."""

from __future__ import annotations

import grp
import pwd

from .commands import Runner
from .systemd import HostError


def exists(name: str) -> bool:
    """Whether the user is there, with the group of its name as its primary one."""
    try:
        return pwd.getpwnam(name).pw_gid == grp.getgrnam(name).gr_gid
    except KeyError:
        return False


def make(run: Runner, name: str) -> None:
    """Makes what is missing of it; raises HostError."""
    try:
        grp.getgrnam(name)
    except KeyError:
        _command(run, "groupadd", "--system", name)
    try:
        pwd.getpwnam(name)
    except KeyError:
        _command(
            run,
            *("useradd", "--system", "--gid", name, "--no-create-home"),
            *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name),
        )
    if not exists(name):
        raise HostError(
            f"the user {name} is there with another primary group: "
            f"run `usermod --gid {name} {name}`, or rename that user"
        )


def remove(run: Runner, name: str) -> None:
    """Removes what is there of it; raises HostError."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        pass
    else:
        _command(run, "userdel", name)
    try:  # it may have gone with the user
        grp.getgrnam(name)
    except KeyError:
        return
    _command(run, "groupdel", name)


def _command(run: Runner, *command: str) -> None:
    code, _output, errors = run(list(command))
    if code != 0:
        detail = " ".join(errors.split()) or f"exit code {code}"
        raise HostError(f"{command[0]} failed ({detail}): {command[-1]} needs to be an account")
