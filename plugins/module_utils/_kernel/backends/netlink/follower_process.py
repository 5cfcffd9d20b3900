# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting the process of the tier netlink (see `follower`), and waiting for it."""

from __future__ import annotations

import os
import threading
import time
from typing import Callable

from ...errors import LoaderError
from ..keeper_unit import UNIT
from . import pulse
from .follower import Follower
from .pulse import Pulse

# Seconds: an existing follower looks for another load four times a second
_NOTICED = 3.0
# To take in all flows that exist
_READY = 120.0
_PAUSE = 0.05


class OwnThread:
    """A follower beside the calling thread."""

    def __init__(self, folder: str) -> None:
        self._follower = Follower(folder)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._follower.run()
        except BaseException as exc:  # noqa: BLE001 said by `wait`
            self._failure = exc

    def wait(self) -> None:
        """Until it is not needed any more; raises what made it fail."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def ensure(folder: str, read: Callable[[], Pulse | None], is_expected: bool) -> bool:
    """Sees to it that somebody follows what is loaded in `folder` now, and has taken in all flows.

    Says whether a process had to be started for it; `is_expected` says that there should be one
    already. Raises LoaderError.
    """
    has_started = False
    if not _await(read, lambda found: found.owner != 0, _NOTICED if is_expected else 0.0):
        start(folder)
        has_started = True
    if not _await(read, lambda found: found.is_alive(), _READY):
        raise LoaderError(
            f"{pulse.NOT_FOLLOWED}: existing flows were not taken in within {_READY:.0f} s "
            f"(`systemctl restart {UNIT}` tries again)"
        )
    return has_started


def _await(
    read: Callable[[], Pulse | None], condition: Callable[[Pulse], bool], seconds: float
) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        found = read()
        if found is not None and condition(found):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE)


def start(folder: str) -> None:
    """Leaves a process behind that follows, for as long as no unit does."""
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _become_follower(folder)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _become_follower(folder: str) -> None:
    """Nothing of the process that it comes from stays open: not its locks, and not its output."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, 1 << 16)
    Follower(folder).run()


def await_end(found: Pulse | None, seconds: float = 5.0) -> None:
    """Waits until a process that has nothing to follow any more has ended."""
    deadline = time.monotonic() + seconds
    while found and found.pid and _exists(found.pid) and time.monotonic() < deadline:
        if found.pid == os.getpid():
            return
        time.sleep(_PAUSE)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
