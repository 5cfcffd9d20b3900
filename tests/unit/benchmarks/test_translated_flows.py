# SPDX-License-Identifier: GPL-3.0-or-later
"""The flows that fill a table are distinct and well-formed."""

from __future__ import annotations

import struct

from benchmarks.in_guest.translated_flows import PORTS, message, messages


def test_the_first_message_is_the_flow_that_look_ups_ask_for() -> None:
    made = next(messages(1))
    assert made == message(b"\x0a\x63\x01\x02", 1024, b"\xc6\x12\x00\x01", 45490)
    assert struct.unpack_from("=I", made)[0] == len(made)


def test_flows_are_distinct_beyond_one_address() -> None:
    count = PORTS + 2
    assert len(set(messages(count))) == count
