# SPDX-License-Identifier: GPL-3.0-or-later
"""What GetConfigState tells an operator."""

from __future__ import annotations

from typing import Iterable

from btfleet.config.v1.config_pb2 import (
    CONFIG_STATUS_EXPIRED,
    CONFIG_STATUS_OK,
    Client,
    GetStateConfigResponse,
    Health,
)
from btfleet.service.refresh import Refresher


def service_state(
    refresher: Refresher, clients: Iterable[Client], started_at: int, now: float
) -> GetStateConfigResponse:
    """The state of the service at the Unix time `now`."""
    snapshot = refresher.snapshot
    state = GetStateConfigResponse(
        active_clients=clients,
        refreshed_at=int(refresher.refreshed_at),
        health=_health(refresher, started_at, now),
    )
    if snapshot is None:
        return state
    for name, kept in (("config", state.config_state), ("director", state.director_state)):
        for file, each in snapshot.file_states[name].items():
            kept[file].CopyFrom(each)
    state.config_status = CONFIG_STATUS_EXPIRED if snapshot.is_expired(now) else CONFIG_STATUS_OK
    state.published.extend(snapshot.published())
    for config in state.published:
        state.target_filenames[config.path] = config.sha256
    return state


def _health(refresher: Refresher, started_at: int, now: float) -> Health:
    snapshot = refresher.snapshot
    if snapshot is None:
        status = "nothing was fetched yet"
    elif snapshot.is_expired(now):
        status = "the director's metadata have expired"
    elif refresher.last_error:
        status = "the last refresh failed, what was verified before is served"
    else:
        status = "serving"
    return Health(
        healthy=status == "serving",
        status=status,
        last_error=refresher.last_error,
        started_at=started_at,
    )
