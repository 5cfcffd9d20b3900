# SPDX-License-Identifier: GPL-3.0-or-later
"""Any flows that there can be, for hypothesis."""

from __future__ import annotations

import socket

from hypothesis import strategies as st

from tests.unit.kernel_access import Wanted

ports = st.integers(0, 65535)
v4 = st.binary(min_size=4, max_size=4).map(socket.inet_ntoa)
v6 = (
    st.binary(min_size=16, max_size=16)
    | st.binary(min_size=4, max_size=4).map(lambda end: bytes(10) + b"\xff\xff" + end)
    | st.binary(min_size=4, max_size=4).map(lambda end: bytes(12) + end)
).map(lambda raw: socket.inet_ntop(socket.AF_INET6, raw))


@st.composite
def wanted_flows(draw: st.DrawFn) -> Wanted:
    addresses = draw(st.sampled_from([v4, v6]))
    end = st.tuples(addresses, ports, addresses, ports)
    return Wanted(
        orig=draw(end),
        reply=draw(end),
        protocol=draw(st.integers(0, 255)),
        netns=draw(st.integers(0, 2**32 - 1)),
        zones=draw(
            st.tuples(ports, st.just(0))
            | st.tuples(st.just(0), ports)
            | ports.map(lambda zone: (zone, zone))
        ),
        ct=draw(st.integers(0, 2**64 - 1)),
        created_ns=draw(st.integers(0, 2**64 - 1)),
        closed_ns=draw(st.integers(0, 2**64 - 1)),
    )
