# SPDX-License-Identifier: GPL-3.0-or-later
"""What a poll says: made anew each time, from what is held and what is in force."""

from __future__ import annotations

import json
from typing import Iterable, Mapping, NamedTuple

from btfleet import __version__
from btfleet._config import paths
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller.states import APPLIED, FAILED, ApplyState
from btfleet.poller.verify import Host, Trusted

NAME = "btfleet"
# As the protocol family counts; APPLYING and RECEIVED are both "unacknowledged" there
_FAMILY_STATES = {APPLIED: 2, FAILED: 3}
_UNACKNOWLEDGED = 1

# Values and owners by PRODUCT.key
Effective = Mapping[str, "Value"]


class Value(NamedTuple):
    """A value in force, and who decided it: `base`, a config's path, or empty if nobody knows."""

    value: object
    owner: str


def client_state(trusted: Trusted, states: Iterable[ApplyState], error: str) -> pb.ClientState:
    """What is held, and how far it has come."""
    return pb.ClientState(
        root_version=trusted.root_version,
        targets_version=trusted.targets_version,
        config_states=[_config_state(state) for state in states],
        has_error=bool(error),
        error=error,
    )


def _config_state(state: ApplyState) -> pb.ConfigState:
    path = paths.parse(state.path)
    return pb.ConfigState(
        id=path.id,
        version=state.version,
        product=path.product,
        apply_state=_FAMILY_STATES.get(state.phase, _UNACKNOWLEDGED),
        apply_error=state.reason,
        apply_phase=pb.ApplyPhase.ValueType(state.phase),
        fingerprint=state.fingerprint,
        path=state.path,
        changed_at=state.changed_at,
    )


def effective_values(effective: Effective) -> list[pb.EffectiveValue]:
    """By key."""
    return [
        pb.EffectiveValue(key=key, value=json.dumps(value.value), owner=value.owner)
        for key, value in sorted(effective.items())
    ]


def build(
    host: Host, trusted: Trusted, state: pb.ClientState, effective: Effective, health: pb.Health
) -> pb.ClientGetConfigsRequest:
    """One request."""
    return pb.ClientGetConfigsRequest(
        client=pb.Client(
            state=state,
            id=host.facts.host,
            products=sorted(host.products),
            is_agent=True,
            client_agent=pb.ClientAgent(name=NAME, version=__version__),
            labels=dict(host.facts.labels),
            groups=sorted(host.facts.groups),
            effective=effective_values(effective),
            health=health,
        ),
        cached_target_files=[
            pb.TargetFileMeta(
                path=path,
                length=len(config.raw),
                hashes=[
                    pb.TargetFileHash(algorithm=name, hash=value)
                    for name, value in sorted(config.hashes.items())
                ],
            )
            for path, config in sorted(trusted.configs.items())
        ],
    )
