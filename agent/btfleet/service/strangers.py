# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers without a good token: refused, counted, logged now and then, and slowed down by address.

Only failures are limited. Whoever has a right token never comes here, however many strangers there
are behind the same address.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from typing import NoReturn
from urllib.parse import unquote

import grpc

from btfleet.poller.log_limit import LogLimit
from btfleet.service.metrics import Metrics
from btfleet.service.rate_limit import RateLimit

logger = logging.getLogger(__name__)

# A host whose token is wrong polls less and less often, so it stays within these; so do some dozens
# behind one address
AT_ONCE = 30
PER_SECOND = 0.2
# About 200 bytes each
ADDRESSES = 10000
# Whoever has one address of version 6 has all of such a network
_NETWORK_V6 = 64


class Strangers:
    """Ends the calls of all of them."""

    def __init__(self, metrics: Metrics, limit: RateLimit | None = None) -> None:
        self._metrics, self._log_limit = metrics, LogLimit()
        self._limit = limit or RateLimit(AT_ONCE, PER_SECOND, ADDRESSES)

    def refuse(self, why: str, context: grpc.ServicerContext) -> NoReturn:
        """Ends a call with UNAUTHENTICATED, or with RESOURCE_EXHAUSTED and when to come again."""
        address = address_of(context.peer())
        wait = math.ceil(self._limit.take(address))
        self._metrics.failed_authentications["limited" if wait else "refused"].inc()
        line = self._log_limit.take(f"a call from {address} was refused: {why}")
        if line:
            logger.warning("%s", line)
        if not wait:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, why)
        context.set_trailing_metadata((("retry-after", str(wait)),))
        context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{why} (too many such calls from {address}: try again in {wait} s)",
        )


def address_of(peer: str) -> str:
    """Whom gRPC's name of a peer is to be counted with: an address, a network, or the name's kind.

    As in `ipv4:192.0.2.7:41234` or `ipv6:%5B2001:db8::1%5D:41234`.
    """
    kind, _colon, rest = peer.partition(":")
    text = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return kind
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _NETWORK_V6), strict=False))
