# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the table by programs whose links the kernel cannot pin: a process holds them."""

from __future__ import annotations

import os

from . import held_links, holder
from .base import keep_links_of
from .programs import Programs


class HeldPrograms(Programs):
    """Until the swap, the holder has both sets of links, and drops the other one then."""

    own_holder: holder.Holder | None = None

    def prepare(self) -> None:
        # Before anything is opened here, which it would have open too
        path = self.request.holder_path
        if held_links.look(path) is None:
            if self.request.stays:
                self.own_holder = holder.Holder(path)
                self.own_holder.start()
            else:
                holder.start(path)
                self.new_keeper = True
        super().prepare()

    def pinned(self) -> dict[str, int]:
        token = os.urandom(8).hex()
        holder.hold(token, self.links, self.request.holder_path)
        self.links = {}
        self.record["held"] = token
        return super().pinned()

    def abandon(self) -> None:
        keep_links_of(self.request.former, self.request.holder_path)
        super().abandon()
