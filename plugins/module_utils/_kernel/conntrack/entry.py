# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The binary layout of entries, all that a look-up needs of it. See `layout` for the rest."""

from __future__ import annotations

import struct

LIVE = "conntrack_live"
CLOSED = "conntrack_closed"
COUNTERS_MAP = "counters"
# When the last namespace ended that had an inode number; see bpf/conntrack.h on how to read entries
NETNS_ENDED = "netns_ended"
NETNS_KEY, NETNS_VALUE = struct.Struct("=I"), struct.Struct("=Q")

# struct conntrack_key: netns, zone, family, protocol, saddr, daddr, sport, dport
KEY = struct.Struct("=IHBB16s16sHH")
# struct conntrack_value: ct, created, closed, saddr, daddr, sport, dport, zone, flags, generation
VALUE = struct.Struct("=QQQ16s16sHHHBB")
FLAGS_OFFSET = 62
GENERATION_OFFSET = 63
FLAG_ORIG = 1
FLAG_SEEDED = 2
