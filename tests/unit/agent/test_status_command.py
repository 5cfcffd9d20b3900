# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracker's state in a few lines."""

from __future__ import annotations

import time
from typing import Any

import pytest
from btfleet import __version__
from btfleet._config.status import Status
from btfleet._kernel.backends.netlink.pulse import Pulse, unfollowed
from btfleet._kernel.spec import Spec
from btfleet.status_command import describe

SPEC = Spec("a" * 64, udpv6_enabled=False)
RECORD: dict[str, Any] = {
    "fingerprint": SPEC.fingerprint,
    "spec": SPEC.to_dict(),
    "tier": "core/kprobe",
    "lifecycle": "pinned",
    "btf_source": "kernel",
    "loaded_at": 1000,
}


def test_nothing_is_loaded() -> None:
    assert describe(Status(None), 1000) == [f"btfleet {__version__}", "tracker   not loaded"]


def test_all_is_well() -> None:
    status = Status(
        RECORD,
        maps={"conntrack_live": {"max_entries": 2000, "entries": 30}},
        counters={"inserted": 15, "deleted": 0, "live_full": 2},
    )
    assert describe(status, 1000 + 7200) == [
        f"btfleet {__version__}",
        "tracker   as loaded: tier core/kprobe, pinned, BTF from kernel, for 2 h",
        (
            f"spec      {SPEC.fingerprint[:12]} tcpv6_enabled true, udpv6_enabled false, "
            "max_entries 131072, closed_entries 65536"
        ),
        "map       conntrack_live: 30 of 2000 entries (1.5 %)",
        "counters  inserted 15, live_full 2",
    ]


FOLLOWED = {
    **RECORD,
    "tier": "netlink",
    "lifecycle": "held",
    "btf_source": None,
    "degraded": "kernel lockdown is confidentiality",
}


def test_a_degraded_tier_says_why_and_how_its_process_does() -> None:
    pulse = Pulse(time.monotonic_ns(), 1, 77, namespaces=3, events=9, overruns=1, comparisons=4)
    lines = describe(Status(FOLLOWED, follower=pulse.to_dict()), 1000)
    assert lines[1:4] == [
        "tracker   as loaded: tier netlink, held, for 0 s",
        "degraded  kernel lockdown is confidentiality",
        (
            "followed  by process 77: 3 namespaces, 9 events, 1 overruns, made good, "
            "4 comparisons with the kernel's table"
        ),
    ]
    dead = describe(Status(FOLLOWED, follower=Pulse().to_dict()), 1000)
    assert not [line for line in dead if line.startswith("followed")]


def test_namespaces_that_are_not_followed_make_the_status_bad() -> None:
    pulse = Pulse(
        time.monotonic_ns(),
        1,
        77,
        namespaces=507,
        no_descriptor=53,
        unfollowed_inode=4026532001,
        no_events=2,
        silent_inode=4026532002,
    )
    status = Status(FOLLOWED, follower=pulse.to_dict(), unseen=tuple(unfollowed(pulse)))
    assert not status.healthy
    lines = describe(status, 1000)
    assert "507 namespaces, 53 not followed, 2 without events (such as 4026532002)" in lines[3]
    (line,) = (line for line in lines if line.startswith("unseen"))
    assert "53, such as 4026532001: no file descriptor is left" in line


def test_drift_is_shown_line_by_line() -> None:
    lines = describe(Status(RECORD, drift=("pin a is missing", "pin b is missing")), 1000)
    assert "NOT as loaded" in lines[1]
    assert lines[-2:] == ["drift     pin a is missing", "drift     pin b is missing"]


def test_drift_without_a_record_is_shown_too() -> None:
    lines = describe(Status(None, drift=("the record is missing",)), 1000)
    assert lines[1:] == ["tracker   not loaded", "drift     the record is missing"]


def test_counters_that_are_all_zero() -> None:
    assert describe(Status(RECORD, counters={"inserted": 0}), 1000)[-1] == "counters  all zero"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min")),
        *((7200, "2 h"), (172799, "47 h"), (172800, "2 d"), (864000, "10 d")),
    ],
)
def test_how_long_it_runs(seconds: int, text: str) -> None:
    assert describe(Status(RECORD), 1000 + seconds)[1].endswith(f", for {text}")


@pytest.mark.parametrize("record", [None, RECORD])
@pytest.mark.parametrize("drift", [(), ("something",)])
def test_healthy_is_loaded_without_drift(
    record: dict[str, Any] | None, drift: tuple[str, ...]
) -> None:
    assert Status(record, drift).healthy is (record is not None and not drift)
