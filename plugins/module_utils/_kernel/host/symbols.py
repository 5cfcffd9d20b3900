# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the kernel's functions we attach to, and what they are called on this kernel."""

from __future__ import annotations

import re
from typing import Iterator, Mapping

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

# What each network namespace comes by at its very end, before its inode number is given back; the
# second one, from 6.18 on, is for namespaces of all kinds
NETNS_ENDS = ("net_ns_net_exit", "__ns_common_free")
# Where a delete program can sit, best first. nf_ct_delete() is none of them: soft interrupts are on
# there, so flows come and go in the midst of the program, and the kernel passes over these runs
DELETES = (DELETE, REMOVE_EXPECTATIONS)
# What tiers attach to
ATTACHED = (INSERT, *DELETES, CONFIRM, CHECK_INSERT, *NETNS_ENDS)
WANTED = (*ATTACHED, SEED, DETACH_DEADLOCK)

# What compilers append. LLVM's ThinLTO: the same function, made visible to other files. gcc: a copy
# for some callers, which may lack arguments, so that the others are not where they were. .part and
# .cold, also of a copy, hold only pieces
_PLAIN = re.compile(rb"(?=[\t\n]|$)")
_RENAMED = re.compile(rb"\.llvm\.\d+(?=[\t\n]|$)")
_COPY = re.compile(rb"(?:\.(?:constprop|isra|llvm)\.\d+)+(?=[\t\n]|$)")
_PIECE = re.compile(rb"(?:\.(?:constprop|isra)\.\d+)*\.part\.\d+(?=[\t\n]|$)")


def find(kallsyms: bytes, names: tuple[str, ...] = WANTED) -> dict[str, str | None]:
    """The real name of each symbol in the text of /proc/kallsyms, None where it is missing.

    The plain name is preferred to NAME.llvm.12, and that to a copy (NAME.constprop.0, NAME.isra.0).
    """
    return {name: _find_one(kallsyms, name.encode()) for name in names}


def _find_one(kallsyms: bytes, name: bytes) -> str | None:
    renamed = copy = None
    for end in _suffixes(kallsyms, name):
        if _PLAIN.match(kallsyms, end):
            return name.decode()
        renamed = renamed or _RENAMED.match(kallsyms, end)
        copy = copy or _COPY.match(kallsyms, end)
    found = renamed or copy
    return (name + found.group()).decode() if found else None


def _suffixes(kallsyms: bytes, name: bytes) -> Iterator[int]:
    """Where the names that begin with `name` go on."""
    position = kallsyms.find(b" " + name)
    while position >= 0:
        yield position + 1 + len(name)
        position = kallsyms.find(b" " + name, position + 1)


def doubts(kallsyms: bytes, found: Mapping[str, str | None]) -> dict[str, str]:
    """What a name alone does not tell of functions that are there: by name, one text each.

    Whether a program on them sees what it should, only flows tell.
    """
    result = {}
    for name, real in found.items():
        if real is None:
            continue
        if ".constprop." in real or ".isra." in real:
            result[name] = "a copy of the compiler's, whose arguments may be others"
        elif any(_PIECE.match(kallsyms, end) for end in _suffixes(kallsyms, name.encode())):
            result[name] = "its beginning is inlined in some callers, which go past it"
    return result


def read() -> bytes:
    """The text of /proc/kallsyms; raises OSError if it cannot be read."""
    with open("/proc/kallsyms", "rb") as stream:
        return stream.read()
