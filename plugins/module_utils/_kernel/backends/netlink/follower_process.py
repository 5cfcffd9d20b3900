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
from .. import daemon
from ..keeper_unit import UNIT
from . import pulse
from .follower import Follower, Staged
from .pulse import Pulse

# Seconds, to take in all flows that exist
_READY = 120.0
_PAUSE = 0.05


class OwnThread:
    """A follower beside the calling thread."""

    def __init__(self, folder: str, staged: Staged | None = None) -> None:
        self._follower = Follower(folder, staged.duplicate() if staged else None)
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


def await_synced(read: Callable[[], Pulse | None]) -> None:
    """Wait until all flows that exist are written. Raises LoaderError, at once if nobody will."""

    def is_over(found: Pulse) -> bool:
        return found.is_alive() or (found.pid != 0 and not _exists(found.pid))

    _await(read, is_over, _READY)
    found = read()
    if found is None or not found.is_alive():
        raise LoaderError(
            f"{pulse.NOT_FOLLOWED}: existing flows were not taken in within {_READY:.0f} s "
            f"(`systemctl restart {UNIT}` tries again)"
        )


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


def start(folder: str, staged: Staged | None = None) -> None:
    """Leave a process behind that follows what is `staged`, or else what is loaded."""
    keep = staged.descriptors() if staged else ()
    daemon.start(lambda: Follower(folder, staged).run(), keep)


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
