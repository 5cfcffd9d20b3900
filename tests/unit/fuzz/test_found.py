# SPDX-License-Identifier: GPL-3.0-or-later
"""What fuzzing has found, and looking at what it covers."""

from __future__ import annotations

import sys

from btfleet.config.v1 import config_pb2 as pb

from tests.fuzz.poll import Poll


def test_a_host_that_says_other_labels_in_each_poll_is_remembered_once() -> None:
    target = Poll()
    request = pb.ClientGetConfigsRequest.FromString(target.seeds()[0])
    for number in range(300):
        request.client.labels["site"] = str(number)
        target.run(request.SerializeToString())
    snapshot = target.refresher.snapshot
    assert snapshot
    assert sys.getsizeof(snapshot._selections) < 1000
