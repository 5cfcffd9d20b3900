# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a load asks of every way to keep the table: one small interface."""

from __future__ import annotations

import abc
import errno
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Mapping

from ..bpf import bpf
from ..bpf.bpffs import Pins
from ..conntrack import layout, record_map
from ..conntrack.layout import CLOSED, LIVE, NETNS_ENDED
from ..errors import LoaderError
from ..host.facts import Facts
from ..host.support import Verdict
from ..spec import NETLINK, Spec
from . import held_links, holder

# Seconds that the kernel may take to detach the former programs
_DETACHED = 10.0


@dataclass(frozen=True)
class Request:
    """A load: the spec, what this host can do, and the record of what is active so far.

    `last_pass` is the number of the last pass over the live map that is active so far. `stays` says
    that this process stays, and may be the one that keeps the tracker.
    """

    spec: Spec
    facts: Facts
    verdict: Verdict
    pins: Pins
    former: Mapping[str, object] | None = None
    holder_path: str = held_links.SOCKET
    last_pass: int = 0
    stays: bool = False


class Backend(abc.ABC):
    """One way to keep the table. A load calls the steps in their order, and then one of two ends.

    Everything before the ends happens beside what is active, which must not notice. Each step may
    raise a TrackerError or an OSError.
    """

    # Whether a process had to be started that keeps the tracker until the unit's does
    new_keeper = False

    def __init__(self, request: Request) -> None:
        self.request = request
        self.record: dict[str, object] = {}
        self.stack = ExitStack()

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make what the kernel needs: maps, with the entries so far, and programs."""

    @abc.abstractmethod
    def attach(self) -> None:
        """From here on, flows that come and go are written to these maps."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Write the flows that exist, and remove entries of those that do not."""

    @abc.abstractmethod
    def pinned(self) -> dict[str, int]:
        """Return the descriptors to pin, by name; `record` is complete then, and among them."""

    @abc.abstractmethod
    def keep(self) -> None:
        """The swap is decided: nothing of this ends with this process any more."""

    @abc.abstractmethod
    def settle(self) -> None:
        """Wait until the former tracker is gone, and take over what it wrote until then."""

    def abandon(self) -> None:
        """End what was begun; what is active so far stays."""
        self.close()

    def close(self) -> None:
        """Let go of what this process has open."""
        self.stack.close()

    def __enter__(self) -> Backend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def await_former_gone(self) -> None:
        """Wait until the kernel has detached the former probes: unpinning does not wait for it."""
        await_gone(
            record_map.probe_links(self.request.former) - record_map.probe_links(self.record)
        )


def former_maps(request: Request, stack: ExitStack) -> dict[str, int]:
    """Return descriptors of the maps so far, from pins, else by the record's ids."""
    found = {}
    ids = record_map.numbers(request.former, "maps")
    for name, shape in layout.SHAPES.items():
        fd = request.pins.open(name)
        if fd is None and name in ids:
            try:
                fd = bpf.fd_by_id(bpf.MAP_GET_FD_BY_ID, ids[name])
            except OSError:
                continue
        if fd is None:
            continue
        stack.callback(os.close, fd)
        info = bpf.map_info(fd)
        if (info.type, info.key_size, info.value_size) == shape:
            found[name] = fd
    return found


def kept_maps(request: Request, maps: Mapping[str, int]) -> set[str]:
    """Return which of the maps so far (descriptors by name) the load goes on using."""
    spec, is_netlink = request.spec, request.verdict.tier == NETLINK
    sizes = layout.sizes(spec.max_entries, spec.closed_entries)
    kept = {name for name, fd in maps.items() if bpf.map_info(fd).max_entries == sizes[name]}
    if record_map.is_followed(request.former) != is_netlink:
        # Cookies differ, and its process writes to its maps until it sees the swap
        return kept & {NETNS_ENDED}
    if CLOSED not in kept and not is_netlink:
        # On the live map that it has, the new delete program would move flows to where nobody finds
        # them should this load not be ended
        kept.discard(LIVE)
    return kept


def await_gone(links: set[int]) -> None:
    """Wait until the kernel has no such links any more; raises LoaderError where it keeps one."""
    deadline = time.monotonic() + _DETACHED
    while True:
        links = {link for link in links if _link_exists(link)}
        if not links:
            return
        if time.monotonic() >= deadline:
            raise LoaderError(
                f"link {min(links)} of the former tracker is still attached after "
                f"{_DETACHED:.0f} s: another process holds it (`bpftool link` names it)"
            )
        time.sleep(0.01)


def _link_exists(link: int) -> bool:
    try:
        os.close(bpf.fd_by_id(bpf.LINK_GET_FD_BY_ID, link))
    except OSError as exc:
        return exc.errno != errno.ENOENT
    return True


def keep_links_of(record: Mapping[str, object] | None, holder_path: str) -> None:
    """Have the process that holds links let go of all but those of `record`."""
    held = held_links.look(holder_path)
    token = record.get("held") if record else None
    if held is not None and (token is None or set(held.sets) - {token}):
        holder.keep(str(token) if token else None, holder_path)
