# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leaves a process behind that keeps a tracker for as long as no unit does."""

from __future__ import annotations

import os
from typing import Callable, Collection


def start(run: Callable[[], None], keep: Collection[int] = ()) -> None:
    """Start a process of its own session that does `run`; of this one's files it has `keep` alone.

    So it holds neither locks nor links nor the output of the process that it comes from.
    """
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _let_go(keep)
                run()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _let_go(keep: Collection[int]) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    begin = 3
    for fd in sorted(keep):
        os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, 1 << 16)
