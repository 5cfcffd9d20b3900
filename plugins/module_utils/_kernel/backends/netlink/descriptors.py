# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many files a process may have open (getrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import resource

# For pins, for looking around, and for asking namespaces
RESERVE = 128


def raise_limit() -> int:
    """Raise the soft limit to the hard one; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # above fs.nr_open, which was lowered since
        return soft
    return hard
