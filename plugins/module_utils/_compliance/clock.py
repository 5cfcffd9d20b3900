# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own word on the clock (adjtimex(2)): every time service reports to it."""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

STA_UNSYNC = 0x0040


class Clock(NamedTuple):
    """Whether something keeps the clock, and how wrong it may be at most by the kernel's count."""

    synchronised: bool
    max_error_seconds: float


class _Timex(ctypes.Structure):
    """struct timex (linux/timex.h), up to what is read here; the rest is room."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    ]


def read() -> Clock:
    """Reads, without setting anything; raises OSError."""
    timex = _Timex(modes=0)
    library = ctypes.CDLL(None, use_errno=True)
    if library.adjtimex(ctypes.byref(timex)) < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return Clock(not timex.status & STA_UNSYNC, timex.maxerror / 1e6)
