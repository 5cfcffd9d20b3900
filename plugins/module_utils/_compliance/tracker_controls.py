# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of the tracker: that what is asked for is what the kernel holds, and that it works."""

from __future__ import annotations

import re
from typing import Any, Mapping

from ansible_collections.btfleet.conntrack.plugins.module_utils._config.merge import BASE
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.backends.held_links import (
    NOT_HELD,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.backends.netlink import (
    pulse,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.conntrack.layout import (
    CLOSED,
    LIVE,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import TIMER

from .host import Host, Tracker
from .units import UnitReading
from .verdict import (
    HIGH,
    LOW,
    MEDIUM,
    NETWORK,
    SECURITY,
    Control,
    Finding,
    judge,
    listed,
    not_applicable,
    unknown,
)
from .wanted import Wanted

_NOT_LOADED = "no tracker is loaded (tracker.loaded)"
_NO_RECORD = "there is no record of the load (tracker.loaded, tracker.pins)"
_LOST = (
    *("live_full", "live_update_failed", "closed_update_failed"),
    *("insert_read_failed", "delete_read_failed"),
)
# The name of the pin in a line of drift
_PIN = re.compile(r"(?:unknown )?pin (\S+).*")
# So many flows do not come and go by chance while a single look is made
_FLOWS_THAT_COUNT = 8


def _record(tracker: Tracker) -> Mapping[str, Any]:
    return tracker.status.record or {}


def _missing(tracker: Tracker) -> list[str]:
    """Pins that the record has and the folder has not."""
    record = _record(tracker)
    names = {*record.get("links", {}), *record.get("maps", {})}
    return sorted(names - set(tracker.pins))


def _not_followed(tracker: Tracker) -> list[str]:
    """What is said of a process that has to follow conntrack events and does not."""
    return [line for line in tracker.status.drift if line.startswith(pulse.NOT_FOLLOWED)]


def _not_held(tracker: Tracker) -> list[str]:
    """What is said of links that a process has to hold and does not."""
    return [line for line in tracker.status.drift if line.startswith(NOT_HELD)]


def _foreign(tracker: Tracker) -> dict[str, str]:
    """Pins that hold what our loader did not put there, with the line that says so.

    What a killed load has left is not foreign (files.unfinished).
    """
    missing = {f"pin {name} is missing" for name in _missing(tracker)}
    missing.update([*_not_followed(tracker), *_not_held(tracker)])
    found = {_PIN.sub(r"\1", line): line for line in tracker.status.drift if line not in missing}
    return {name: line for name, line in found.items() if not name.startswith("new_")}


def loaded(host: Host, wanted: Wanted) -> Finding:
    """A tracker is loaded at all."""
    expected = "a tracker is loaded"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    tier = _record(host.tracker).get("tier")
    actual = f"loaded, tier {tier}" if tier else "something is pinned"
    good = bool(host.tracker.pins)
    return judge(good, expected, actual if good else "nothing is pinned", wanted.rollout())


def pins(host: Host, wanted: Wanted) -> Finding:
    """All that was pinned is pinned still, and what is held is held."""
    expected = "all pins of the load are there"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    if not host.tracker.pins:
        return not_applicable(expected, _NOT_LOADED)
    if not host.tracker.status.record:
        return judge(False, expected, listed(list(host.tracker.status.drift)), wanted.rollout())
    missing, unheld = _missing(host.tracker), _not_held(host.tracker)
    found = [f"missing: {', '.join(missing)}"] if missing else []
    return judge(
        not missing and not unheld,
        expected,
        listed(found + unheld) or f"{len(host.tracker.pins)} pins",
        wanted.rollout(),
    )


def foreign(host: Host, wanted: Wanted) -> Finding:
    """Nothing is pinned in our folder but what our loader put there."""
    expected = "each pin holds what was loaded, and there are no others"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    if not host.tracker.status.record:
        why = _NO_RECORD if host.tracker.pins else _NOT_LOADED
        return not_applicable(expected, why)
    found = list(_foreign(host.tracker).values())
    return judge(
        not found,
        expected,
        listed(found) or "each is as loaded",
        f"find out who pinned it (`bpftool map` and `bpftool prog` on the host), then "
        f"{wanted.rollout()}",
    )


def attached(host: Host, wanted: Wanted) -> Finding:
    """The programs run when flows come and go, or the process that stands for them does."""
    expected = "the programs run whenever flows come and go"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    unfollowed = _not_followed(host.tracker)
    if unfollowed:
        return judge(False, expected, listed(unfollowed), wanted.rollout())
    if not _record(host.tracker) or _missing(host.tracker) or host.tracker.status.drift:
        return not_applicable(expected, "not as loaded (tracker.loaded, .pins, .foreign)")
    if host.tracker.status.unseen:
        return judge(
            False,
            expected,
            listed(list(host.tracker.status.unseen)),
            "let the process follow them: `btfleet status` on the host says what is needed",
        )
    follower = host.tracker.status.follower or {}
    if follower.get("no_events"):
        return judge(
            False,
            expected,
            f"{follower['no_events']} network namespaces send no events, such as "
            f"{follower['silent_inode']}",
            "set net.netfilter.nf_conntrack_events to 2 in them (`sysctl -w`, by `ip netns exec`)",
        )
    traffic = host.tracker.traffic
    if traffic is None:
        return unknown(expected, "counters and the number of flows cannot be read together")
    changed = abs(traffic.flows_after - traffic.flows_before)
    ran = traffic.hits_after - traffic.hits_before
    if ran == 0 and changed >= _FLOWS_THAT_COUNT:
        actual = f"{changed} flows came or went meanwhile, and no program ran"
        return judge(False, expected, actual, wanted.rollout())
    if traffic.hits_after == 0:
        return not_applicable(expected, "no flow has come or gone since the load")
    return judge(True, expected, f"ran {traffic.hits_after} times since the load", "")


def object_file(host: Host, wanted: Wanted) -> Finding:
    """The object is sound on disk, and is the one that is meant."""
    expected = "the object is sound on disk, and the one that the collection carries"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    if not host.tracker.objects:
        return not_applicable(expected, "no object is asked for by a spec")
    bad = [text for text in host.tracker.objects.values() if text]
    arch = host.facts.arch if host.facts else ""
    meant = wanted.objects.get("any") or wanted.objects.get(arch)
    if meant and not bad:
        bad = [
            f"{sha256[:12]} is installed, the collection carries {meant[:12]}"
            for sha256 in host.tracker.objects
            if sha256 != meant
        ]
    digests = ", ".join(sha256[:12] for sha256 in host.tracker.objects)
    return judge(not bad, expected, listed(bad) or digests, wanted.rollout())


def spec(host: Host, wanted: Wanted) -> Finding:
    """What is loaded is what the spec file, with remote config over it, asks for."""
    expected = "the spec file, with remote config over it, is what is loaded"
    if host.tracker is None or "spec" in host.unread:
        why = host.why("tracker" if host.tracker is None else "spec")
        if host.tracker is None:
            return unknown(expected, why)
        return judge(False, expected, why, wanted.rollout())
    record, effective = _record(host.tracker), host.tracker.effective
    if not record:
        return not_applicable(expected, _NO_RECORD if host.tracker.pins else _NOT_LOADED)
    if effective is None:
        return judge(False, expected, "there is no spec file to load at boot", wanted.rollout())
    asked = effective.spec.to_dict()
    found = record.get("spec")
    found = found if isinstance(found, dict) else {}
    other = [
        f"{key} is {_text(found.get(key))}, asked for is {_text(value)}"
        for key, value in sorted(asked.items())
        if found.get(key) != value
    ]
    same = record["fingerprint"] == effective.spec.fingerprint
    actual = f"fingerprint {str(record['fingerprint'])[:12]}"
    return judge(same, expected, listed(other) or actual, wanted.rollout())


def settings(host: Host, wanted: Wanted) -> Finding:
    """The base that is in force is what the inventory asks for."""
    expected = "the settings that the inventory asks for"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    record = _record(host.tracker)
    if not wanted.settings:
        return not_applicable(expected, "the caller has not said what they are")
    if not record:
        return not_applicable(expected, _NO_RECORD if host.tracker.pins else _NOT_LOADED)
    found, owners = record["spec"], host.tracker.status.owners
    # What remote config has decided is config.agreed's business
    other = [
        f"{key} is {_text(found.get(key))}, not {_text(value)}"
        for key, value in sorted(wanted.settings.items())
        if found.get(key) != value and owners.get(key) in (None, BASE)
    ]
    return judge(not other, expected, listed(other) or "they are in force", wanted.rollout())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


def access(host: Host, wanted: Wanted) -> Finding:
    """Pins are root's, and the agent's group may read those that it needs."""
    expected = "pins are root's, and the agent's group may read the maps"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    if not host.tracker.pins:
        return not_applicable(expected, _NOT_LOADED)
    # Those that are not ours have a control of their own
    other = _foreign(host.tracker)
    denied = [
        name for name in host.tracker.denied if name not in other and not name.startswith("new_")
    ]
    actual = f"wrong owner, group or mode: {listed(denied)}" if denied else "as needed"
    return judge(not denied, expected, actual, wanted.rollout())


def _fill(host: Host, wanted: Wanted, name: str, limit: float, setting: str) -> Finding:
    expected = f"less than {limit:g} % of {name} is in use"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    sizes = host.tracker.status.maps.get(name)
    if sizes is None:
        return not_applicable(expected, f"{name} is not there (tracker.loaded, .pins, .foreign)")
    if "entries" not in sizes:
        return unknown(expected, host.why("fill"))
    percent = 100 * sizes["entries"] / max(sizes["max_entries"], 1)
    larger = min(2 * sizes["max_entries"], 16777216)
    return judge(
        percent < limit,
        expected,
        f"{sizes['entries']} of {sizes['max_entries']} entries, {percent:.1f} %",
        f"raise {setting} for the host in the inventory, for example to {larger}, then "
        f"{wanted.rollout()}",
    )


def live_fill(host: Host, wanted: Wanted) -> Finding:
    """There is room for more flows."""
    limit = wanted.limits.live_fill_percent
    return _fill(host, wanted, LIVE, limit, "conntracker_max_entries")


def closed_fill(host: Host, wanted: Wanted) -> Finding:
    """Closed flows are still known for a while: a full map forgets the one used longest ago."""
    limit = wanted.limits.closed_fill_percent
    return _fill(host, wanted, CLOSED, limit, "conntracker_closed_entries")


def lost(host: Host, wanted: Wanted) -> Finding:
    """What the programs could not store or read."""
    limit = wanted.limits.lost_percent
    return _share(
        *(host, wanted, _LOST, limit, f"at most {limit:g} % of flows were lost"),
        "raise conntracker_max_entries and conntracker_closed_entries where they are too small, "
        f"then {wanted.rollout(' -e conntracker_state=unloaded')} and {wanted.rollout()}, from "
        "where the counters start anew",
    )


def missed(host: Host, wanted: Wanted) -> Finding:
    """What the kernel did not run a program for, because the CPU was busy with another one."""
    limit = wanted.limits.missed_percent
    return _share(
        *(host, wanted, ("insert_missed", "delete_missed"), limit),
        f"at most {limit:g} % of flows were passed over by the kernel",
        f"what was missed is repaired (tracker.reconciled); "
        f"{wanted.rollout(' -e conntracker_state=unloaded')} and {wanted.rollout()} let the "
        "counters start anew; core/fentry misses the least, where the kernel has it",
    )


def reconciled(host: Host, wanted: Wanted) -> Finding:
    """What was missed is repaired."""
    expected = "the timer looks for what was missed, and repairs it"
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    found = host.tracker.status.reconciled
    if found is None:
        return not_applicable(expected, "no programs are loaded (tracker.loaded)")
    if found["error"]:
        fix = "`btfleet reconcile` on the host tries again; what the line says"
        return judge(False, expected, f"the last one failed: {found['error']}", fix)
    timer = (host.units or {}).get(TIMER, UnitReading())
    if timer.is_installed and not (timer.enabled and timer.active):
        return judge(False, expected, f"{TIMER} is {timer.state}", wanted.rollout())
    actual = (
        f"{found['runs']} times since the load: {found['added_ever']} entries added, "
        f"{found['removed_ever']} removed"
    )
    return judge(True, expected, actual, "")


def _share(
    host: Host, _wanted: Wanted, names: tuple[str, ...], limit: float, expected: str, fix: str
) -> Finding:
    if host.tracker is None:
        return unknown(expected, host.why("tracker"))
    counters = host.tracker.status.counters
    if not counters:
        return not_applicable(expected, "there are no counters (tracker.loaded, .pins, .foreign)")
    found = {name: counters[name] for name in names if counters.get(name)}
    flows = counters.get("insert_hits", 0) + counters.get("delete_hits", 0)
    percent = 100 * sum(found.values()) / max(flows, 1)
    shown = ", ".join(f"{name} {count}" for name, count in found.items())
    actual = f"{shown} of {flows} runs, {percent:.2g} %" if found else f"none of {flows} runs"
    return judge(percent <= limit, expected, actual, fix)


CONTROLS = (
    Control("tracker.loaded", "A tracker is loaded", HIGH, NETWORK, loaded),
    Control("tracker.pins", "All pins of the load are there", HIGH, NETWORK, pins),
    Control("tracker.foreign", "Nothing foreign under our pin names", HIGH, SECURITY, foreign),
    Control("tracker.attached", "The programs run for flows", HIGH, NETWORK, attached),
    Control("tracker.object", "The object is the one that is meant", HIGH, SECURITY, object_file),
    Control("tracker.spec", "What is asked for is loaded", HIGH, NETWORK, spec),
    Control("tracker.settings", "The inventory's settings are in force", HIGH, NETWORK, settings),
    Control("tracker.access", "Pins have the right owners and modes", MEDIUM, SECURITY, access),
    Control("tracker.live_fill", "There is room for more flows", MEDIUM, NETWORK, live_fill),
    Control("tracker.closed_fill", "Closed flows are known a while", LOW, NETWORK, closed_fill),
    Control("tracker.lost", "No flows are lost", MEDIUM, NETWORK, lost),
    Control("tracker.missed", "The kernel passes over no flows", MEDIUM, NETWORK, missed),
    Control("tracker.reconciled", "What was missed is repaired", MEDIUM, NETWORK, reconciled),
)
