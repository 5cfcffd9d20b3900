# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look-up of a connection: one rule for the command, the agent and whoever else asks.

A connection is looked for in its own namespace and in the root namespace, where a host translates
what its containers send. A flow that lives is the answer before one that has ended, in whichever of
the two it is. A look-up's time is that of its imports, so this file and what it imports stay small.
"""

from __future__ import annotations

import os

from ..bpf.bpffs import Pins
from ..bpf.calls import RDONLY, map_lookup
from . import netns
from .entry import CLOSED, KEY, LIVE, NETNS_ENDED, NETNS_KEY, NETNS_VALUE, VALUE
from .flow import CLOSED_STATE, LIVE_STATE, Flow, decode, make_key, protocol_number

_MAPS = {LIVE_STATE: LIVE, CLOSED_STATE: CLOSED}


def keys(
    namespace: int | None, zone: int, protocol: str, ends: tuple[str, int, str, int]
) -> list[bytes]:
    """Return what to look for, to know what the connection with these ends is translated to.

    The ends may be those of either direction. `namespace` is the connection's own, None for the
    caller's. Raises TrackerError for what cannot be a flow.
    """
    number = protocol_number(protocol)
    own = netns.own() if namespace is None else namespace
    return [make_key(each, zone, number, *ends) for each in dict.fromkeys((own, netns.root()))]


class Lookup:
    """The maps of the tracker that is loaded now, opened. Raises LoaderError where none is."""

    def __init__(self, pins: Pins) -> None:
        self._fds: list[int] = []
        try:
            self._maps = {state: self._kept(pins.open_map(name)) for state, name in _MAPS.items()}
            ended = pins.open(NETNS_ENDED, RDONLY)
            self._ended = None if ended is None else self._kept(ended)
        except BaseException:
            self.close()
            raise

    def _kept(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the maps."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def find(self, wanted: list[bytes]) -> Flow | None:
        """Return the flow that has one of these keys (see `keys`), None if none is translated."""
        answer = None
        for state in _MAPS:
            for key in wanted:
                flow = self.entry(state, key)
                if flow is None:
                    continue
                if flow.state == LIVE_STATE:
                    return flow
                # What is asked is about the namespace that has the number now, if there is one
                if flow.netns_gone and netns.is_in_use(flow.netns):
                    continue
                if answer is None or (answer.netns_gone and not flow.netns_gone):
                    answer = flow
        return answer

    def entry(self, state: str, key: bytes) -> Flow | None:
        """Return what one map has for one key."""
        value = map_lookup(self._maps[state], key, VALUE.size)
        if value is None:
            return None
        return decode(key, value, state, self._ended_ns(KEY.unpack(key)[0]))

    def _ended_ns(self, number: int) -> int:
        if self._ended is None:
            return 0
        raw = map_lookup(self._ended, NETNS_KEY.pack(number), NETNS_VALUE.size)
        return int(NETNS_VALUE.unpack(raw)[0]) if raw else 0
