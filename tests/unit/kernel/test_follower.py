# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of the tier netlink keeps the maps as the kernel's own table is.

Real flows in namespaces of the test's own, and conntrack(8) as the oracle.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from btfleet._kernel.backends.base import Request
from btfleet._kernel.backends.netlink import ct_watch, descriptors, follower, pulse
from btfleet._kernel.backends.netlink.flow_table import FlowTable
from btfleet._kernel.backends.netlink.follower import Follower
from btfleet._kernel.backends.netlink.netlink_tier import Netlink
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.bpffs import Pins
from btfleet._kernel.conntrack import namespaces, table
from btfleet._kernel.conntrack.ctnetlink import Direction, Flow
from btfleet._kernel.conntrack.layout import CLOSED, COUNTERS_MAP, LIVE, read_counters
from btfleet._kernel.conntrack.lookup import Lookup, keys
from btfleet._kernel.conntrack.namespaces import Gone, Namespace
from btfleet._kernel.host.facts import BtfFacts, Facts
from btfleet._kernel.host.support import Verdict
from btfleet._kernel.spec import Spec

from tests.unit.kernel.nat_namespace import End, Router, eventually, needs_nat, router
from tests.unit.kernel_access import bpffs_at, namespace

pytestmark = needs_nat

SPEC = Spec("a" * 64, tiers=("netlink",))
FACTS = Facts("6.18", "x86_64", None, None, BtfFacts(None, "btf_not_found"), {}, {}, {})


# Tracked, and not translated
_UNTRANSLATED = """
flush ruleset
table inet plain {
    chain out { type filter hook postrouting priority 0; ct state new accept; }
}
"""


class Tier:
    """What a load of the tier pins, and followers of it."""

    def __init__(self, folder: str, stack: ExitStack) -> None:
        self.pins = Pins(folder)
        self._stack = stack
        self.threads: list[threading.Thread] = []
        self.load(SPEC)

    def load(self, spec: Spec) -> None:
        verdict = Verdict(True, "netlink", "held", {})
        backend = self._stack.enter_context(Netlink(Request(spec, FACTS, verdict, self.pins)))
        backend.prepare()
        self.maps = backend.pinned()
        self.pulse_fd = self.maps[pulse.PIN]
        self.pins.replace(self.maps)

    def follow(self) -> threading.Thread:
        """A follower; returns when it has taken in what there is."""
        made = Follower(self.pins.folder)
        thread = threading.Thread(target=made.run)
        thread.start()
        self.threads.append(thread)
        assert eventually(lambda: self.pulse.owner == made._owner and self.pulse.is_alive())
        return thread

    @property
    def pulse(self) -> pulse.Pulse:
        return pulse.read(self.pulse_fd)

    @property
    def counters(self) -> dict[str, int]:
        return read_counters(self.maps[COUNTERS_MAP])

    def flows(self, name: str, inode: int) -> set[tuple[End, End]]:
        state = "live" if name == LIVE else "closed"
        found = table.flows(self.maps[name], state)
        return {(flow.orig, flow.reply) for flow in found if flow.netns == inode}

    def end(self) -> None:
        self.pins.remove()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[Tier]:
    with bpffs_at(tmp_path / "bpf") as mount, ExitStack() as stack:
        made = Tier(str(mount / "btfleet"), stack)
        stack.callback(made.end)
        yield made


@pytest.fixture
def nat() -> Iterator[Router]:
    with router() as made:
        yield made


def inode(made: Router) -> int:
    return os.stat(made.path).st_ino


def agrees(tier: Tier, nat: Router) -> bool:
    """Soon, since events come after the fact."""
    expected = nat.table()
    return eventually(lambda: tier.flows(LIVE, inode(nat)) == expected)


def test_flows_from_before_are_taken_in(tier: Tier, nat: Router) -> None:
    sent = nat.send(0.3)
    tier.follow()
    assert len(nat.table()) == sent
    assert agrees(tier, nat)
    assert tier.counters["seeded"] == sent


def test_a_thousand_new_flows_a_second_are_all_there(tier: Tier, nat: Router) -> None:
    tier.follow()
    sent = nat.send(3, rate=1000)
    assert len(nat.table()) == sent >= 2000
    assert agrees(tier, nat)
    assert tier.pulse.overruns == 0
    assert eventually(lambda: tier.counters["inserted"] == sent)


def test_ended_flows_are_known_among_the_closed_ones(tier: Tier, nat: Router) -> None:
    tier.follow()
    nat.send(0.5)
    before = nat.table()
    nat.run("conntrack", "-F")
    assert eventually(lambda: not tier.flows(LIVE, inode(nat)))
    assert tier.flows(CLOSED, inode(nat)) == before
    assert tier.counters["deleted"] == len(before)


def announce(nat: Router, mode: int) -> None:
    """Set the namespace's net.netfilter.nf_conntrack_events."""
    nat.run("tee", "/proc/sys/net/netfilter/nf_conntrack_events", text=f"{mode}\n")


def test_a_flow_without_a_translation_is_not_answered_by_an_older_one_with_its_tuple(
    tier: Tier, nat: Router
) -> None:
    tier.follow()
    nat.send(0.3)
    ends = next(iter(nat.table()))[0]
    nat.run("conntrack", "-F")
    wanted = keys(inode(nat), 0, "udp", ends)
    assert eventually(lambda: not tier.flows(LIVE, inode(nat)))
    with Lookup(tier.pins) as maps:
        older = maps.find(wanted)
        assert older is not None
        assert older.state == "closed"
        nat.run("nft", "-f", "-", text=_UNTRANSLATED)
        nat.send(0.3)
        assert eventually(lambda: maps.find(wanted) is None)
    assert eventually(lambda: tier.counters["superseded"] > 0)


def test_ends_that_nobody_announces_are_found(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(nat, 0)
    monkeypatch.setattr(follower, "_SHARE", 1)
    tier.follow()
    assert eventually(lambda: tier.pulse.silent_inode == inode(nat))
    assert tier.pulse.no_events == 1
    nat.send(0.3)
    before = nat.table()
    assert agrees(tier, nat)
    nat.run("conntrack", "-F")
    assert eventually(lambda: not tier.flows(LIVE, inode(nat)))
    assert tier.flows(CLOSED, inode(nat)) == before
    assert tier.pulse.repaired == 2 * len(before)


def test_a_namespace_whose_events_are_switched_on_again_is_no_longer_said_to_have_none(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(nat, 0)
    monkeypatch.setattr(follower, "_SHARE", 1)
    tier.follow()
    assert eventually(lambda: tier.pulse.no_events == 1)
    announce(nat, 2)
    assert eventually(lambda: tier.pulse.no_events == 0)


@pytest.mark.parametrize("announced", ["destroy", "new"])
def test_flows_whose_beginning_or_end_a_rule_masks_are_found_by_their_number(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch, announced: str
) -> None:
    monkeypatch.setattr(follower, "_SHARE", 1)
    monkeypatch.setattr(follower, "_COMPARE", 3600.0)
    nat.run(
        "nft",
        "add table inet mask; add chain inet mask out { type filter hook output priority -100; }; "
        f"add rule inet mask out udp dport != 53 ct event set {announced}",
    )
    tier.follow()
    first = tier.pulse.comparisons
    nat.send(0.3)
    assert len(nat.table()) > 100
    assert agrees(tier, nat)
    nat.run("conntrack", "-F")
    assert eventually(lambda: not tier.flows(LIVE, inode(nat)))
    assert tier.pulse.comparisons > first


def test_as_many_namespaces_as_there_are_descriptors_for_are_followed_and_the_rest_is_said(
    tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "raise_limit", lambda: descriptors.RESERVE + 1)
    with router() as one, router() as other:
        tier.follow()
        assert eventually(lambda: tier.pulse.no_descriptor >= 2)
        said = tier.pulse
        assert (said.namespaces, said.no_entry) == (1, 0)
        assert said.unfollowed_inode in namespaces.find()
        (line,) = pulse.unfollowed(said)
        assert "no file descriptor is left" in line
        assert inode(one) != inode(other)


def test_a_namespace_that_cannot_be_entered_is_said_to_be_that(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, found = inode(nat), namespaces.find

    def find(descriptors: bool = True) -> dict[int, Namespace]:
        # It is there, and what is known of it leads elsewhere
        return {**found(descriptors), number: Namespace(number, ["/dev/null"])}

    monkeypatch.setattr(namespaces, "find", find)
    tier.follow()
    assert eventually(lambda: tier.pulse.no_entry == 1)
    assert tier.pulse.unfollowed_inode == number
    assert tier.pulse.no_descriptor == 0
    (line,) = pulse.unfollowed(tier.pulse)
    assert "cannot be entered" in line


def test_a_path_that_leads_to_another_namespace_by_now_is_not_followed_as_this_one(
    nat: Router,
) -> None:
    with namespace() as other:
        watch = ct_watch.Watch(Namespace(inode(nat), [other]))
        nat.send(0.1)
        query = watch.query()
        assert query.count > 0
        query.close()
        watch.close()
    with pytest.raises(Gone):
        ct_watch.Watch(Namespace(17, [nat.path]))


def test_a_namespace_takes_one_descriptor(nat: Router) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch = ct_watch.Watch(Namespace(inode(nat), [nat.path]))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    watch.close()


def test_an_overrun_loses_nothing_that_lives_and_keeps_nothing_that_has_ended(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ct_watch, "_BUFFER", 8192)
    tier.follow()
    nat.send(0.5, rate=20000)
    assert eventually(lambda: tier.pulse.overruns > 0)
    assert agrees(tier, nat)
    nat.run("conntrack", "-F")
    nat.send(0.2, rate=20000, first=30000)
    assert agrees(tier, nat)


def test_a_namespace_that_comes_is_followed_and_one_that_goes_is_let_go(tier: Tier) -> None:
    tier.follow()
    with router() as stays:
        with router() as goes:
            # Its end here goes when the other namespace does, and not before
            link = f"link add w0 type veth peer name w1 netns {goes.path.split('/')[2]}"
            stays.run("ip", "-batch", "-", text=link + "\n")
            goes.send(0.3)
            assert agrees(tier, goes)
            number, before = inode(goes), goes.table()
        assert eventually(lambda: not tier.flows(LIVE, number))
        assert tier.flows(CLOSED, number) == before
        assert eventually(lambda: "w0" not in stays.run("ip", "-o", "link"))


def test_a_namespace_that_a_descriptor_alone_holds_by_now_is_followed_on(tier: Tier) -> None:
    tier.follow()
    with router() as nat:
        held = os.open(nat.path, os.O_RDONLY)
        number, sent = inode(nat), nat.send(0.3)
        assert eventually(lambda: len(tier.flows(LIVE, number)) == sent)
    try:
        beat = tier.pulse.beat_ns
        assert eventually(lambda: tier.pulse.beat_ns > beat + 3 * 10**9)
        assert eventually(lambda: len(tier.flows(LIVE, number)) == sent)
    finally:
        os.close(held)
    assert eventually(lambda: not tier.flows(LIVE, number))


def test_a_namespace_with_the_number_of_one_that_is_gone_waits_for_its_entries_to_be_closed(
    tier: Tier, nat: Router
) -> None:
    number = inode(nat)
    sent = nat.send(0.3)
    made = Follower(tier.pins.folder)
    assert made._adopt()
    # As if they were another namespace's, which had the number before
    adopted = made._now_adopted.table
    side = Direction(bytes(16), bytes(16), 0, 0, 0)
    for port in range(1000):
        former = Flow(2, 17, 1, side._replace(sport=port), side._replace(dport=port + 1))
        adopted.insert(number, former)
    made._taken_in, made._gone, made._remains = True, {number}, made._entries_of({number})
    made._round()
    assert number not in made._watches
    assert 0 < len(tier.flows(LIVE, number)) < 1000
    while number in made._gone:
        made._round()
    assert not tier.flows(LIVE, number)
    assert len(tier.flows(CLOSED, number)) == 1000
    made._round()
    made._compare(list(made._watches.values()))
    assert len(tier.flows(LIVE, number)) == sent
    assert agrees(tier, nat)
    tier.pins.remove()
    made.run()


def test_a_full_table_is_bounded_and_counted(tier: Tier, nat: Router) -> None:
    tier.load(replace(SPEC, max_entries=1024, closed_entries=1024))
    tier.follow()
    sent = nat.send(1, rate=1000)
    assert eventually(lambda: tier.counters["insert_hits"] >= sent)
    kept = tier.flows(LIVE, inode(nat))
    assert len(kept) == 512
    assert kept < nat.table()
    assert tier.counters["live_full"] >= sent - 512
    nat.run("conntrack", "-F")
    assert eventually(lambda: not tier.flows(LIVE, inode(nat)))
    assert len(tier.flows(CLOSED, inode(nat))) <= 1024


def test_settings_of_the_spec_are_followed(tier: Tier, nat: Router) -> None:
    tier.load(replace(SPEC, udpv6_enabled=False))
    tier.follow()
    nat.run(
        "python3",
        "-c",
        "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        "s.bind(('fd09::1', 40000))\ns.sendto(b'x', ('fd09::7', 9))\n",
    )
    assert eventually(lambda: tier.counters["insert_disabled"] == 1)
    assert not tier.flows(LIVE, inode(nat))
    assert len(nat.table()) == 1


def test_another_load_is_adopted(tier: Tier, nat: Router) -> None:
    thread = tier.follow()
    nat.send(0.2)
    tier.load(replace(SPEC, max_entries=4096))
    assert eventually(lambda: bool(tier.pulse.is_alive()))  # another pulse each time
    assert agrees(tier, nat)
    assert thread.is_alive()


def test_another_load_is_adopted_in_the_midst_of_a_long_comparison(
    tier: Tier, nat: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, seen, see = nat.send(2, rate=500), [], FlowTable.see

    def see_slowly(self: FlowTable, *flow: Any) -> None:
        seen.append(flow)
        time.sleep(0.02)
        see(self, *flow)

    monkeypatch.setattr(FlowTable, "see", see_slowly)
    monkeypatch.setattr(follower, "_TURN", 8)
    made = Follower(tier.pins.folder)
    tier.threads.append(threading.Thread(target=made.run))
    tier.threads[0].start()
    assert eventually(lambda: len(seen) > 8)
    tier.load(replace(SPEC, max_entries=50000))
    assert eventually(lambda: tier.pulse.owner == made._owner)
    assert len(seen) < sent
    monkeypatch.setattr(FlowTable, "see", see)
    assert agrees(tier, nat)
    assert eventually(lambda: tier.pulse.beat_ns > 0)


def test_a_second_follower_takes_over_and_nothing_is_missed(tier: Tier, nat: Router) -> None:
    first = tier.follow()
    sender = nat.sending(500, 3)
    tier.follow()
    first.join(10)
    assert not first.is_alive()
    nat.sent(sender)
    assert agrees(tier, nat)


def test_it_ends_when_the_pins_go(tier: Tier) -> None:
    thread = tier.follow()
    tier.pins.remove()
    thread.join(10)
    assert not thread.is_alive()


def test_many_starts_leave_no_descriptor_behind(tier: Tier) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    tier.follow()
    before = descriptors()
    for _number in range(5):
        tier.follow()
    assert eventually(lambda: descriptors() == before)


def test_whether_somebody_follows_shows_in_the_pulse(tier: Tier) -> None:
    assert pulse.drift(tier.pulse) == [f"{pulse.NOT_FOLLOWED}: flows come and go unseen"]
    tier.follow()
    assert pulse.drift(tier.pulse) == []
    assert not tier.pulse.is_alive(tier.pulse.beat_ns + 11 * 10**9)


def test_the_oracle_is_no_code_of_ours(nat: Router) -> None:
    nat.send(0.1)
    counted = subprocess.run(
        ["nsenter", f"--net={nat.path}", "conntrack", "-C"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(nat.table()) == int(counted.stdout)


def test_maps_have_the_shape_that_readers_expect(tier: Tier) -> None:
    sizes = {name: bpf.map_info(fd).max_entries for name, fd in tier.maps.items()}
    assert (sizes[LIVE], sizes[CLOSED]) == (SPEC.max_entries, SPEC.closed_entries)
