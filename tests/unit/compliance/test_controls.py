# SPDX-License-Identifier: GPL-3.0-or-later
"""Each control: what it fails for, and that one cause is one finding."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
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
    Traffic,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.units import UnitReading
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.verdict import (
    OWNERS,
    SEVERITIES,
    STATUSES,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._compliance.wanted import (
    Limits,
    Wanted,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._config import remote
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.facts import (
    INCONCLUSIVE,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.spec import TIERS
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import State

from tests.unit.compliance.hosts import (
    AGENT,
    ANSWER,
    BARE,
    DAY,
    FACTS,
    HOST,
    NOW,
    OBJECT,
    RECONCILED,
    RELEASE,
    SPEC,
    TRACKER,
    WANTED,
    bad,
    finding,
    record,
    status,
    unit,
    with_agent,
    with_probe,
    with_status,
    with_tracker,
    with_units,
)

OTHER_SPEC = replace(SPEC, max_entries=65536)
REFUSED = "c:1 does not take the token in /etc/btfleet/token (unknown): deploy the token"


def poll_error(text: str, **summary: Any) -> Host:
    parts = {"poll": {"healthy": False, "last_error": text}}
    answer = {**ANSWER, "health": {"healthy": False, "components": parts}}
    return with_agent(answer=answer, summary={**AGENT.summary, **summary})


def without(*names: str) -> Host:
    return with_tracker(
        pins=tuple(set(TRACKER.pins) - set(names)),
        status=status(drift=tuple(f"pin {name} is missing" for name in names)),
    )


def test_a_host_as_it_should_be_passes_every_control() -> None:
    results = catalogue.assess(HOST, WANTED)
    assert {one["id"] for one in results if one["status"] != "pass"} == set()
    assert all(one["fix"] == "" for one in results)


# A cause, and the one control that names it
CAUSES: dict[str, tuple[str, Host]] = {
    "lockdown": (
        "kernel.lockdown",
        replace(HOST, facts=replace(FACTS, lockdown="confidentiality")),
    ),
    "another object on disk": ("tracker.object", with_tracker(objects={OBJECT: "it has sha256 b"})),
    "nothing is loaded": (
        "tracker.loaded",
        with_tracker(status=status(record=None, maps={}, counters={}), pins=(), traffic=None),
    ),
    "a link's pin is gone": ("tracker.pins", without("link_insert")),
    "two pins are gone": ("tracker.pins", without("conntrack_live", "entries_live")),
    "the record's pin is gone": (
        "tracker.pins",
        with_tracker(
            pins=("conntrack_live", "link_insert"),
            status=status(record=None, drift=("the record is missing",), maps={}, counters={}),
        ),
    ),
    "a foreign map under our name": (
        "tracker.foreign",
        with_tracker(
            status=status(drift=("pin conntrack_live holds map 99, not map 2",)),
            denied=("conntrack_live",),
        ),
    ),
    "a pin of somebody else": (
        "tracker.foreign",
        with_tracker(
            pins=(*TRACKER.pins, "theirs"),
            status=status(drift=("unknown pin theirs",)),
            denied=("theirs",),
        ),
    ),
    "programs do not run": ("tracker.attached", with_tracker(traffic=Traffic(10, 90, 70, 70))),
    "another spec is asked for": (
        "tracker.spec",
        with_tracker(spec=OTHER_SPEC, effective=remote.base_alone(OTHER_SPEC)),
    ),
    "no spec file": ("tracker.spec", with_tracker(spec=None, effective=None)),
    "another base is in force": (
        "tracker.settings",
        with_tracker(
            status=status(
                record=record(spec=OTHER_SPEC.to_dict(), fingerprint=OTHER_SPEC.fingerprint)
            ),
            spec=OTHER_SPEC,
            effective=remote.base_alone(OTHER_SPEC),
        ),
    ),
    "a pin for everybody": ("tracker.access", with_tracker(denied=("counters",))),
    "the mount point is closed": ("kernel.bpffs", with_tracker(mount_denied="group 5, mode 0710")),
    "the map is nearly full": (
        "tracker.live_fill",
        with_status(
            maps={**status().maps, "conntrack_live": {"max_entries": 1000, "entries": 800}}
        ),
    ),
    "closed flows are forgotten": (
        "tracker.closed_fill",
        with_status(
            maps={**status().maps, "conntrack_closed": {"max_entries": 1000, "entries": 950}}
        ),
    ),
    "flows are lost": ("tracker.lost", with_status(counters={"insert_hits": 5000, "live_full": 6})),
    "flows are passed over": (
        "tracker.missed",
        with_status(counters={"insert_hits": 900, "delete_hits": 100, "insert_missed": 2}),
    ),
    "what was missed is not repaired": (
        "tracker.reconciled",
        with_status(reconciled={**RECONCILED, "error": "no memory"}),
    ),
    "nothing looks for what was missed": (
        "tracker.reconciled",
        with_units(reconcile=unit(shown={"UnitFileState": "enabled", "ActiveState": "inactive"})),
    ),
    "a stale release": (
        "release.current",
        replace(HOST, releases=State(releases=("0.9-1", RELEASE), current="0.9-1", command=True)),
    ),
    "no release": ("release.current", replace(HOST, releases=State())),
    "another command": (
        "release.command",
        replace(HOST, releases=State(releases=(RELEASE,), current=RELEASE)),
    ),
    "old releases": (
        "release.kept",
        replace(
            HOST,
            releases=State(releases=(RELEASE, "3", "2", "1"), current=RELEASE, command=True),
        ),
    ),
    "another unit file": ("release.units", with_units(conntracker=unit(file="x"))),
    "a unit that systemd has not read": (
        "release.reload",
        with_units(agent=unit(shown={**unit().shown, "NeedDaemonReload": "yes"})),
    ),
    "a drop-in that gives more away": (
        "release.hardening",
        with_units(agent=unit(shown={**unit().shown, "ProtectSystem": "no"})),
    ),
    "the boot unit is disabled": (
        "release.boot",
        with_units(conntracker=unit(shown={**unit().shown, "UnitFileState": "disabled"})),
    ),
    "the boot unit has failed": (
        "release.boot",
        with_units(conntracker=unit(shown={**unit().shown, "ActiveState": "failed"})),
    ),
    "a wrong mode": (
        "files.access",
        replace(HOST, access=(Access("/etc/btfleet/token", "root:b 0644", "root:b 0640"),)),
    ),
    "a killed writer": ("files.unfinished", replace(HOST, unfinished=("/etc/btfleet/.btfleet-x",))),
    "the agent is stopped": (
        "agent.unit",
        replace(
            with_units(agent=unit(shown={**unit().shown, "ActiveState": "inactive"})),
            agent=replace(AGENT, answer={"running": False}, summary={"running": False}),
        ),
    ),
    "the agent's path unit is off": (
        "agent.unit",
        with_units(apply=unit(shown={**unit().shown, "ActiveState": "inactive"})),
    ),
    "a restart is due": ("agent.unit", with_agent(restart_due=True)),
    "no agent": ("agent.unit", replace(HOST, agent=Agent())),
    "the agent does not answer": (
        "agent.health",
        with_agent(answer={"running": False}, summary={"running": False, "error": "no answer"}),
    ),
    "the agent is not well": (
        "agent.health",
        with_agent(
            answer={
                **ANSWER,
                "health": {"components": {"state": {"healthy": False, "last_error": "disk full"}}},
            }
        ),
    ),
    "an old token": ("agent.token", poll_error(REFUSED, age_seconds=5000)),
    "another host's token": (
        "agent.token",
        poll_error("c:1 says that the token in /etc/btfleet/token is not that of gw1 (x): deploy"),
    ),
    "a token for years": ("agent.token_age", with_agent(token_changed_at=NOW - 366 * DAY)),
    "a CA that ends soon": (
        "agent.certificates",
        with_agent(certificates={"/etc/btfleet/ca.pem": (Validity(0, int(NOW) + 29 * DAY),)}),
    ),
    "a damaged CA": (
        "agent.certificates",
        replace(with_agent(certificates={}), unread={"/etc/btfleet/ca.pem": "it is damaged"}),
    ),
    "polls fail for long": ("agent.poll_age", poll_error("cannot be reached", age_seconds=301)),
    "no poll has succeeded": ("agent.poll_age", poll_error("cannot be reached", age_seconds=None)),
    "a config that is not in force": ("config.agreed", with_agent(disagreements=("a: FAILED",))),
    "more keys than allowed": ("config.allowed", with_tracker(allowed=frozenset())),
    "a clock ahead": ("clock.offset", replace(HOST, now=NOW + 3600)),
    "a clock behind": ("clock.offset", replace(HOST, now=NOW - 3600)),
    "a clock that nobody keeps": (
        "clock.synchronised",
        replace(HOST, clock=Clock(synchronised=False, max_error_seconds=16)),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_is_named_by_one_control_with_a_fix(cause: str) -> None:
    control, host = CAUSES[cause]
    assert bad(host) == {control: "fail"}
    found = finding(control, host)
    assert found.fix
    assert found.actual
    assert found.expected


def test_every_control_can_fail() -> None:
    tested = {control for control, _host in CAUSES.values()}
    together = {"kernel.supported", "kernel.btf", "kernel.tier"}  # below
    assert {one.id for one in catalogue.CONTROLS} == tested | together


def test_a_kernel_that_has_become_unfit_is_named() -> None:
    host = with_probe("btf")
    assert bad(host) == {"kernel.supported": "fail", "kernel.btf": "fail"}


def test_a_better_tier_than_the_one_in_force_is_named() -> None:
    kprobe = with_status(record=record(tier="core/kprobe"))
    assert bad(kprobe) == {"kernel.tier": "fail"}
    # where the kernel cannot have a better one, it is the best
    fentry_refused = with_probe("tracing_programs")
    assert bad(replace(kprobe, facts=fentry_refused.facts)) == {}


def _followed(drift: tuple[str, ...] = (), **found: Any) -> Host:
    """A host of the tier netlink, under lockdown."""
    spec = replace(SPEC, tiers=TIERS)
    made = record(
        tier="netlink",
        degraded="lockdown",
        links={},
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
    )
    tracker = replace(
        TRACKER,
        status=status(record=made, drift=drift, **found),
        spec=spec,
        effective=remote.base_alone(spec),
        pins=tuple(sorted((*made["maps"], "follower", "loaded"))),
    )
    locked = with_probe("lockdown_allows_reads").facts
    assert locked is not None
    return replace(HOST, tracker=tracker, facts=replace(locked, lockdown="confidentiality"))


def test_a_host_on_netlink_passes_and_is_said_to_be_degraded() -> None:
    host = _followed()
    assert bad(host) == {}
    assert finding("kernel.tier", host).actual == "netlink (degraded: lockdown)"
    assert finding("kernel.supported", host).actual.endswith("as the test has it))")
    assert finding("kernel.lockdown", host).status == "not_applicable"


def test_a_table_that_nobody_keeps_is_one_finding() -> None:
    host = _followed(("no process follows the conntrack events: flows come and go unseen",))
    assert bad(host) == {"tracker.attached": "fail"}
    assert finding("tracker.attached", host).fix


def test_namespaces_without_events_are_named() -> None:
    host = _followed(follower={"no_events": 2, "silent_inode": 4026531999})
    assert bad(host) == {"tracker.attached": "fail"}
    actual = finding("tracker.attached", host).actual
    assert actual == "2 network namespaces send no events, such as 4026531999"


def test_namespaces_that_are_not_followed_are_said_with_the_reason() -> None:
    host = _followed(unseen=("network namespaces that are not followed: 53: no descriptor",))
    assert bad(host) == {"tracker.attached": "fail"}
    assert "53: no descriptor" in finding("tracker.attached", host).actual


def test_a_release_with_dependencies_is_the_wanted_one() -> None:
    name = f"{RELEASE}-cp311-x86_64-1"
    host = replace(HOST, releases=State(releases=(name,), current=name, command=True))
    assert bad(host) == {}
    other = f"{RELEASE}0"
    host = replace(HOST, releases=State(releases=(other,), current=other, command=True))
    assert bad(host) == {"release.current": "fail"}


def test_what_remote_config_has_decided_is_not_held_against_the_inventory() -> None:
    owners = {**status().owners, "max_entries": "btfleet/1/CONNTRACK/edge/small"}
    effective = remote.Effective(OTHER_SPEC, owners)  # type: ignore[arg-type]
    host = with_tracker(
        status=status(
            record=record(spec=OTHER_SPEC.to_dict(), fingerprint=OTHER_SPEC.fingerprint),
            owners=owners,
        ),
        effective=effective,
    )
    assert bad(host) == {}


def test_what_a_killed_load_has_left_is_unfinished_and_not_foreign() -> None:
    host = replace(
        with_tracker(
            pins=(*TRACKER.pins, "new_counters"),
            status=status(drift=("unknown pin new_counters",)),
            denied=("new_counters",),
        ),
        unfinished=("/sys/fs/bpf/btfleet/new_counters",),
    )
    assert bad(host) == {"files.unfinished": "fail"}


def test_a_ca_that_is_being_replaced_counts_by_the_newer_one() -> None:
    both = (Validity(0, int(NOW) + DAY), Validity(0, int(NOW) + 400 * DAY))
    assert bad(with_agent(certificates={"ca.pem": both})) == {}


def test_a_single_poll_that_failed_is_no_finding() -> None:
    assert bad(poll_error("cannot be reached", age_seconds=10)) == {}


def test_polls_are_rare_where_the_interval_is_long() -> None:
    host = with_agent(
        answer={**ANSWER, "poll_interval_seconds": 3600.0},
        summary={**AGENT.summary, "age_seconds": 3700},
    )
    assert bad(host) == {}


def test_without_an_agent_where_none_is_wanted_nothing_of_it_is_judged() -> None:
    host, wanted = replace(HOST, agent=Agent()), replace(WANTED, agent=False)
    found = {one["id"]: one["status"] for one in catalogue.assess(host, wanted)}
    assert bad(host, wanted) == {}
    assert found["agent.health"] == found["config.agreed"] == "not_applicable"
    assert bad(HOST, wanted) == {"agent.unit": "fail"}


def test_flows_that_come_and_go_unseen_are_no_proof_in_small_numbers() -> None:
    assert bad(with_tracker(traffic=Traffic(10, 17, 70, 70))) == {}
    quiet = finding("tracker.attached", with_tracker(traffic=Traffic(0, 0, 0, 0)))
    assert quiet.status == "not_applicable"
    assert finding("tracker.attached", with_tracker(traffic=None)).status == "unknown"


def test_thresholds_are_the_callers() -> None:
    tight = Limits(live_fill_percent=1, closed_fill_percent=1, token_days=0, certificate_days=500)
    assert set(bad(HOST, replace(WANTED, limits=tight))) == {
        "tracker.live_fill",
        "tracker.closed_fill",
        "agent.token_age",
        "agent.certificates",
    }


def test_a_bare_host_is_data() -> None:
    found = {one["id"]: one["status"] for one in catalogue.assess(BARE, WANTED)}
    assert {name for name, value in found.items() if value == "fail"} == {
        "tracker.loaded",
        "release.current",
        "release.boot",
        "agent.unit",
        "config.allowed",
    }
    assert "unknown" not in found.values()


def test_a_host_of_which_nothing_can_be_read_says_so_for_every_control() -> None:
    results = catalogue.assess(Host(now=NOW, unread={"tracker": "no such thing"}), WANTED)
    assert {one["status"] for one in results if one["id"] != "release.units"} <= {
        "unknown",
        "not_applicable",
        "pass",
    }
    assert {one["id"] for one in results if one["status"] == "pass"} == {
        "clock.offset",
        "waivers.expired",
    }
    by_id = {one["id"]: one for one in results}
    assert by_id["tracker.pins"]["actual"] == "no such thing"
    assert not catalogue.is_compliant(results)


def test_a_map_whose_entries_cannot_be_counted_is_unknown() -> None:
    host = with_status(maps={"conntrack_live": {"max_entries": 1000}})
    found = finding("tracker.live_fill", replace(host, unread={"fill": "[Errno 5] EIO"}))
    assert (found.status, found.actual) == ("unknown", "[Errno 5] EIO")


def test_a_damaged_spec_file_is_named() -> None:
    host = replace(with_tracker(spec=None, effective=None), unread={"spec": "it is not JSON"})
    assert bad(host) == {"tracker.spec": "fail", "config.allowed": "unknown"}


def test_types_that_are_not_to_be_told_yet_are_no_finding() -> None:
    assert finding("kernel.btf", with_probe("btf", INCONCLUSIVE)).status == "not_applicable"


def test_results_have_one_form() -> None:
    for host in (HOST, BARE, Host(now=NOW), *(host for _control, host in CAUSES.values())):
        for one in catalogue.assess(host, WANTED):
            assert set(one) == {
                *("id", "title", "severity", "owner"),
                *("status", "expected", "actual", "fix", "waiver"),
            }
            assert one["status"] in STATUSES
            assert one["severity"] in SEVERITIES
            assert one["owner"] in OWNERS
            assert all("\n" not in str(value) for value in one.values())
            assert bool(one["fix"]) or one["status"] != "fail"


def test_ids_and_titles_are_unique() -> None:
    assert len({one.id for one in catalogue.CONTROLS}) == len(catalogue.CONTROLS)
    assert len({one.title for one in catalogue.CONTROLS}) == len(catalogue.CONTROLS)


def test_a_caller_who_says_nothing_is_told_what_can_be_told() -> None:
    assert bad(HOST, Wanted()) == {}


def test_a_unit_that_is_not_installed_is_not_held_against_the_release() -> None:
    host = replace(HOST, units=dict.fromkeys(HOST.units or {}, UnitReading()))
    assert set(bad(host)) == {"release.boot", "agent.unit"}


def test_a_fix_can_be_copied_whatever_files_are_called() -> None:
    nasty = "/var/lib/btfleet-agent/.btfleet-$(reboot); x"
    host = replace(
        HOST, unfinished=(nasty,), access=(Access(nasty, "root:b 0644", "root:root 0640"),)
    )
    for control in ("files.unfinished", "files.access"):
        words = shlex.split(finding(control, host).fix)
        assert nasty in words


def test_a_read_only_system_is_not_asked_for_the_commands_link() -> None:
    without = State(releases=(RELEASE,), current=RELEASE, read_only=True)
    found = finding("release.command", replace(HOST, releases=without))
    assert (found.status, found.actual) == (
        "not_applicable",
        "/usr/local/bin is on a read-only file system",
    )
    linked = replace(without, command=True)
    assert finding("release.command", replace(HOST, releases=linked)).status == "pass"
