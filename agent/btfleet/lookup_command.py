# SPDX-License-Identifier: GPL-3.0-or-later
"""`btfleet conntrack lookup`. What is imported here is what a look-up costs."""

from __future__ import annotations

import sys

from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import netns
from btfleet._kernel.conntrack.flow import LIVE_STATE, to_json
from btfleet._kernel.conntrack.lookup import Lookup, keys
from btfleet._kernel.errors import TrackerError
from btfleet.flow_text import HEADER, aligned, netns_number, row

TYPE_CHECKING = False  # typing's own costs a look-up more than all the rest
if TYPE_CHECKING:
    from btfleet.quick import Options

NOT_TRANSLATED, CLOSED = 1, 6


def run(options: Options) -> int:
    """Exit code 0 if a translated flow lives, 6 if one has ended and none lives, 1 if there is
    none.
    """
    src, sport = parse_endpoint(options.source)
    dst, dport = parse_endpoint(options.destination)
    namespace = netns_number(options.netns)
    if not 0 <= options.zone <= 65535:
        raise TrackerError(f"zone is {options.zone}, needed: a number from 0 to 65535")
    wanted = keys(namespace, options.zone, options.protocol, (src, sport, dst, dport))
    with Lookup(Pins()) as maps:
        flow = maps.find(wanted)
    if flow is None:
        print("not translated", file=sys.stderr)
        return NOT_TRANSLATED
    if options.json:
        print(to_json(flow))
    else:
        for line in aligned([HEADER, row(flow, netns.names())]):
            print(line)
    return 0 if flow.state == LIVE_STATE else CLOSED


def parse_endpoint(text: str) -> tuple[str, int]:
    """Address and port; raises TrackerError."""
    address, colon, port = text.rpartition(":")
    in_brackets = address.startswith("[") and address.endswith("]")
    if in_brackets:
        address = address[1:-1]
    known = "0123456789." if not in_brackets else "0123456789abcdefABCDEF:."
    plain = address.partition("%")[0] if in_brackets else address
    if (
        not colon
        or not plain
        or plain.strip(known)
        or not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535)
    ):
        raise TrackerError(
            f"{text!r} is no address with a port: write 192.0.2.1:80 or [2001:db8::1]:80"
        )
    return address, int(port)
