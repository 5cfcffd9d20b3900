# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the kernel's functions we attach to, and what they are called on this kernel."""

from __future__ import annotations

import re

INSERT = "__nf_conntrack_hash_insert"
# Linux 5.19 and newer
DELETE = "__nf_ct_delete_from_lists"
# What older kernels call in the same place: also with soft interrupts off, under the same locks
REMOVE_EXPECTATIONS = "nf_ct_remove_expectations"
SEED = "ctnetlink_fill_info"
# The two callers of INSERT, for kernels where it is inlined
CONFIRM = "__nf_conntrack_confirm"
CHECK_INSERT = "nf_conntrack_hash_check_insert"
# Where the kernel has it (about 5.7 to 6.8), detaching a trampoline can deadlock
DETACH_DEADLOCK = "tasks_rcu_exit_srcu"

# What each network namespace comes by at its very end, before its inode number is given back
NETNS_END = "net_ns_net_exit"
# Where a delete program can sit, best first. nf_ct_delete() is none of them: soft interrupts are on
# there, so flows come and go in the midst of the program, and the kernel passes over these runs
DELETES = (DELETE, REMOVE_EXPECTATIONS)
# What tiers attach to
ATTACHED = (INSERT, *DELETES, CONFIRM, CHECK_INSERT, NETNS_END)
WANTED = (*ATTACHED, SEED, DETACH_DEADLOCK)

# gcc copies of a function for some callers; .part and .cold, also of a copy, hold only pieces
_CLONE = re.compile(rb"(?:\.(?:constprop|isra)\.\d+)+(?=[\t\n]|$)")


def find(kallsyms: bytes, names: tuple[str, ...] = WANTED) -> dict[str, str | None]:
    """The real name of each symbol in the text of /proc/kallsyms, None where it is missing.

    The plain name is preferred to a clone (NAME.constprop.0, NAME.isra.0).
    """
    return {name: _find_one(kallsyms, name.encode()) for name in names}


def _find_one(kallsyms: bytes, name: bytes) -> str | None:
    clone = None
    position = kallsyms.find(b" " + name)
    while position >= 0:
        end = position + 1 + len(name)
        following = kallsyms[end : end + 1]
        if following in (b"\n", b"\t", b""):
            return name.decode()
        suffix = None if clone else _CLONE.match(kallsyms, end)
        if suffix:
            clone = (name + suffix.group()).decode()
        position = kallsyms.find(b" " + name, end)
    return clone


def read() -> dict[str, str | None]:
    """The same from the running kernel; raises OSError if /proc/kallsyms cannot be read."""
    with open("/proc/kallsyms", "rb") as stream:
        return find(stream.read())
