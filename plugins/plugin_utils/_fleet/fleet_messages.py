# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of the config service on a control node, made from their description at run time.

Code that protoc generates runs with the protobuf that it was made for, or newer. A control node has
whichever one its distribution gives it, so the collection brings the description (`make build`
writes it beside this file), and any protobuf since 3.20 makes classes of it.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, NamedTuple

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    HAS_PROTOBUF = True
except ImportError:
    HAS_PROTOBUF = False

NEEDED = "grpcio and protobuf (3.20 or newer)"
PACKAGE = "btfleet.config.v1"
DESCRIPTION = os.path.join(os.path.dirname(os.path.realpath(__file__)), "config_v1.binpb")


class FleetViewError(Exception):
    """What the control node cannot learn of the fleet: one line, with what to do."""


class Messages(NamedTuple):
    """Classes of protobuf messages."""

    ListClientsRequest: Any
    ListClientsResponse: Any


def python() -> str:
    """The Python that runs Ansible, which is where libraries have to be."""
    return sys.executable or "the Python that runs Ansible"


@functools.lru_cache(maxsize=None)
def load() -> Messages:
    """The messages; raises FleetViewError where a library or the description is missing."""
    if not HAS_PROTOBUF:
        raise FleetViewError(
            f"the library protobuf is missing for {python()}: install {NEEDED} there"
        )
    try:
        with open(DESCRIPTION, "rb") as stream:
            files = descriptor_pb2.FileDescriptorSet.FromString(stream.read())
    except OSError as exc:
        raise FleetViewError(
            f"cannot read {DESCRIPTION} ({exc.strerror}): install the collection from its tarball, "
            "which has it, or run `make build` in the checkout"
        ) from None
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return Messages(*(_message(pool, f"{PACKAGE}.{name}") for name in Messages._fields))


def _message(pool: Any, name: str) -> Any:
    description = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(description)
    factory: Any = message_factory.MessageFactory(pool)  # before 4.22
    return factory.GetPrototype(description)
