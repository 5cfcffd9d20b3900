# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on which every control passes, for tests to spoil one thing of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance import catalogue
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.certificates import (
    Validity,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.clock import Clock
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.file_access import (
    Access,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.host import (
    Agent,
    Host,
    Tracker,
    Traffic,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.units import (
    UNITS,
    UnitReading,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import Finding
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.wanted import Wanted
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import remote
from ansible_collections.btfleet.conntrack.plugins.module_utils._config.status import Status
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.facts import (
    NO,
    YES,
    BtfFacts,
    Facts,
    Probe,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import Spec
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import State

NOW = 1_800_000_000.0
DAY = 86400
OBJECT = "a" * 64
SPEC = Spec(OBJECT)
RELEASE = "1.0.0-0123456789ab"
KEYS = frozenset(["CONNTRACK.udpv6_enabled"])
LINKS = ("entries_live", "link_delete", "link_insert")
MAPS = ("conntrack_closed", "conntrack_live", "counters")

FACTS = Facts(
    kernel="6.12.0",
    arch="x86_64",
    lockdown="none",
    libbpf={"path": "libbpf.so.1", "version": "1.5"},
    btf=BtfFacts("kernel", "default"),
    modules={},
    symbols={},
    sysctl={},
    probes={
        name: Probe(YES, f"{name} was tried")
        for name in ("btf", "bpffs", "libbpf", "lockdown_allows_reads", "tracing_programs")
    },
)


def record(**changes: Any) -> dict[str, Any]:
    """What the loader has recorded."""
    return {
        "fingerprint": SPEC.fingerprint,
        "spec": SPEC.to_dict(),
        "tier": "core/fentry",
        "links": {name: number for number, name in enumerate(LINKS, 1)},
        "maps": {name: number for number, name in enumerate(MAPS, 1)},
        **changes,
    }


RECONCILED = {
    "at": 1,
    "seconds": 0.5,
    "why": "load",
    "added": 0,
    "removed": 0,
    "added_ever": 0,
    "removed_ever": 0,
    "runs": 0,
    "error": None,
}


def status(**changes: Any) -> Status:
    """The tracker as it was loaded."""
    values: dict[str, Any] = {
        "record": record(),
        "maps": {
            "conntrack_live": {"max_entries": 1000, "entries": 10},
            "conntrack_closed": {"max_entries": 1000, "entries": 20},
        },
        "counters": {"insert_hits": 5000, "delete_hits": 4000, "live_full": 0, "insert_missed": 0},
        "reconciled": RECONCILED,
        "owners": dict.fromkeys(SPEC.to_dict(), "base"),
        **changes,
    }
    return Status(**values)


TRACKER = Tracker(
    status=status(),
    pins=tuple(sorted((*LINKS, *MAPS, "loaded"))),
    spec=SPEC,
    effective=remote.base_alone(SPEC),
    allowed=KEYS,
    objects={OBJECT: None},
    traffic=Traffic(100, 101, 8000, 9000),
)

ANSWER: dict[str, Any] = {
    "running": True,
    "host": "gw1",
    "poll_interval_seconds": 5.0,
    "client": {"config_states": []},
    "health": {
        "healthy": True,
        "components": {
            "poll": {"healthy": True, "last_error": ""},
            "state": {"healthy": True, "last_error": ""},
        },
    },
}
AGENT = Agent(
    installed=True,
    answer=ANSWER,
    summary={"running": True, "age_seconds": 3, "root_version": 1, "targets_version": 2},
    token_changed_at=NOW - DAY,
    certificates={"/etc/btfleet/ca.pem": (Validity(0, int(NOW) + 400 * DAY),)},
)


def unit(**changes: Any) -> UnitReading:
    """A unit as the release has it."""
    shown = {"UnitFileState": "enabled", "ActiveState": "active", "ProtectSystem": "strict"}
    values: dict[str, Any] = {"file": "f", "packed": "f", "wanted": {"ProtectSystem": "strict"}}
    return UnitReading(**{**values, "shown": shown, **changes})


HOST = Host(
    now=NOW,
    facts=FACTS,
    tracker=TRACKER,
    releases=State(releases=(RELEASE,), current=RELEASE, command=True),
    units=dict.fromkeys(UNITS, unit()),
    access=(Access("/etc/btfleet/spec.json", "root:root 0644", "root:root 0644"),),
    unfinished=(),
    agent=AGENT,
    clock=Clock(synchronised=True, max_error_seconds=0.01),
)
WANTED = Wanted(
    host="gw1",
    release=RELEASE,
    objects={"x86_64": OBJECT},
    agent=True,
    settings={"max_entries": 131072, "udpv6_enabled": True},
    remote_keys=tuple(KEYS),
    control_time=NOW - 1,
)
# A host that has nothing of ours, and is not to have it
BARE = Host(
    now=NOW,
    facts=FACTS,
    tracker=Tracker(),
    releases=State(),
    units=dict.fromkeys(UNITS, UnitReading()),
    access=(),
    unfinished=(),
    agent=Agent(),
    clock=Clock(synchronised=True, max_error_seconds=0.01),
)


def with_tracker(**changes: Any) -> Host:
    return replace(HOST, tracker=replace(TRACKER, **changes))


def with_status(**changes: Any) -> Host:
    return with_tracker(status=status(**changes))


def with_agent(**changes: Any) -> Host:
    return replace(HOST, agent=replace(AGENT, **changes))


def with_probe(name: str, value: str = NO) -> Host:
    probes = {**FACTS.probes, name: Probe(value, "as the test has it")}
    return replace(HOST, facts=replace(FACTS, probes=probes))


def with_units(**changes: UnitReading) -> Host:
    units = {name: changes.get(Path(name).stem.partition("-")[2], unit()) for name in UNITS}
    return replace(HOST, units=units)


def finding(control: str, host: Host, wanted: Wanted = WANTED) -> Finding:
    """What one control finds."""
    (found,) = [one for one in catalogue.CONTROLS if one.id == control]
    return found.check(host, wanted)


def bad(host: Host, wanted: Wanted = WANTED) -> dict[str, str]:
    """Controls that do not pass and are applicable, with their statuses."""
    return {
        one["id"]: one["status"]
        for one in catalogue.assess(host, wanted)
        if one["status"] in ("fail", "unknown")
    }
