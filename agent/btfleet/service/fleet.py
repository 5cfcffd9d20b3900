# SPDX-License-Identifier: GPL-3.0-or-later
"""What ListClients tells an operator of the hosts, a page at a time."""

from __future__ import annotations

import bisect
from typing import Sequence

from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    CONFIG_STATUS_OK,
    PRESENCE_ACTIVE,
    PRESENCE_STALE,
    PRESENCE_UNHEARD,
    Client,
    KnownClient,
    ListClientsRequest,
    ListClientsResponse,
)
from btfleet.service.clients import Clients, client_of
from btfleet.service.snapshot import Snapshot

# A page ends with the host that reaches one of these: no fleet makes an answer that is too long to
# send, or a call that keeps a thread for long
PAGE_HOSTS = 500
PAGE_BYTES = 1 << 20


def page(
    request: ListClientsRequest,
    hosts: Sequence[str],
    clients: Clients,
    snapshot: Snapshot | None,
    started_at: int,
    now: float,
) -> ListClientsResponse:
    """The hosts after the request's token. `hosts` are all names, sorted; `now` is Unix time.

    A host that comes or goes between two pages is in the list or not; nobody else is moved by that.
    """
    answer = ListClientsResponse(now=int(now), started_at=started_at)
    if snapshot is not None:
        answer.root_version = snapshot.root_version
        answer.targets_version = snapshot.targets_version
        answer.config_status = (
            CONFIG_STATUS_EXPIRED if snapshot.is_expired(now) else CONFIG_STATUS_OK
        )
    first = bisect.bisect_right(hosts, request.page_token) if request.page_token else 0
    last = min(len(hosts), first + min(request.page_size or PAGE_HOSTS, PAGE_HOSTS))
    size = 0
    for number in range(first, last):
        known = _known(hosts[number], clients, now)
        answer.clients.append(known)
        size += known.ByteSize()
        if size >= PAGE_BYTES:
            last = number + 1
            break
    if last < len(hosts):
        answer.next_page_token = hosts[last - 1]
    return answer


def _known(host: str, clients: Clients, now: float) -> KnownClient:
    entry = clients.get(host)
    if entry is None:
        return KnownClient(client=Client(id=host), presence=PRESENCE_UNHEARD)
    presence = PRESENCE_ACTIVE if clients.is_live(entry, now) else PRESENCE_STALE
    return KnownClient(client=client_of(entry), presence=presence)
