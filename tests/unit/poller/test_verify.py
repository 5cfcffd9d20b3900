# SPDX-License-Identifier: GPL-3.0-or-later
"""Each attack is refused by its name, with the state untouched; honest answers are taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from btfleet._config.predicates import HostFacts
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.poller.errors import ATTACKS, UpdateRefused
from btfleet.poller.verify import CLOCK_TOLERANCE, Host, Stored, Trusted
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Delegations
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from tests.unit.poller.director import (
    CALM,
    DAY,
    HOST,
    NO_UDP6,
    NOW,
    Director,
    content,
    edited,
    signed,
    signer,
    when,
)

UDP6 = {NO_UDP6: content(udpv6_enabled=False)}
BOTH = {**UDP6, CALM: content(poll_interval_seconds=60)}


def filled(director: Director) -> Trusted:
    """A client that has taken what the director publishes."""
    trusted = verify.start(director.first_root)
    return verify.update(trusted, director.answer(), HOST, NOW)


def refused(
    trusted: Trusted, answer: pb.ClientGetConfigsResponse, host: Host = HOST, now: int = NOW
) -> UpdateRefused:
    before = (trusted.roots, trusted.targets, dict(trusted.configs), trusted.refill)
    with pytest.raises(UpdateRefused) as caught:
        verify.update(trusted, answer, host, now)
    assert (trusted.roots, trusted.targets, dict(trusted.configs), trusted.refill) == before
    assert str(caught.value).startswith(ATTACKS[caught.value.kind] + ": ")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def director() -> Director:
    made = Director()
    made.publish(UDP6)
    return made


# --- honest answers -----------------------------------------------------------------------------


def test_a_first_answer_is_taken_whole(director: Director) -> None:
    trusted = filled(director)
    config = trusted.configs[NO_UDP6]
    assert (config.version, config.raw) == (1, UDP6[NO_UDP6])
    assert (trusted.root_version, trusted.targets_version) == (1, 2)
    assert verify.in_force(trusted, NOW) == trusted.configs


def test_an_empty_answer_changes_nothing(director: Director) -> None:
    trusted = filled(director)
    hint = pb.ClientGetConfigsResponse(suggested_interval_seconds=60)
    assert verify.update(trusted, pb.ClientGetConfigsResponse(), HOST, NOW) is trusted
    assert verify.update(trusted, hint, HOST, NOW) is trusted


def test_only_new_files_have_to_be_sent(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    answer = director.answer(target_files=[pb.File(path=CALM, raw=BOTH[CALM])])
    assert set(verify.update(trusted, answer, HOST, NOW).configs) == set(BOTH)


def test_a_config_that_is_not_listed_any_more_goes(director: Director) -> None:
    trusted = filled(director)
    director.publish({})
    assert verify.update(trusted, director.answer(), HOST, NOW).configs == {}


def test_a_chain_of_rotated_roots_is_followed(director: Director) -> None:
    trusted = filled(director)
    director.rotate("root")
    director.rotate("root", "snapshot")
    director.publish(BOTH)
    after = verify.update(trusted, director.answer(have_root=1), HOST, NOW)
    assert after.root_version == 3
    assert list(after.roots) == director.roots


def test_256_roots_at_a_time_and_then_the_rest(director: Director) -> None:
    for _number in range(257):
        director.rotate()
    trusted = verify.start(director.first_root)
    part = pb.ClientGetConfigsResponse(roots=director.roots[1:257])
    trusted = verify.update(trusted, part, HOST, NOW)
    assert trusted.root_version == 257
    trusted = verify.update(trusted, director.answer(have_root=257), HOST, NOW)
    assert trusted.root_version == 258
    assert set(trusted.configs) == set(UDP6)


def test_configs_of_other_hosts_and_other_products_do_not_have_to_be_listed(
    director: Director,
) -> None:
    director.publish(BOTH)
    director.customs[CALM]["predicates"] = [{"host": "gw2"}]
    director.files["btfleet/1/LATER/a/b"] = b"{}"
    director.customs["btfleet/1/LATER/a/b"] = {"v": 1}
    director.files["btfleet/2/CONNTRACK/a/b"] = b"{}"
    director.customs["btfleet/2/CONNTRACK/a/b"] = {"v": 1}
    director.sign_targets()
    answer = director.answer(
        client_configs=[NO_UDP6], target_files=[pb.File(path=NO_UDP6, raw=UDP6[NO_UDP6])]
    )
    trusted = verify.update(verify.start(director.first_root), answer, HOST, NOW)
    assert list(trusted.configs) == [NO_UDP6]


# --- roots --------------------------------------------------------------------------------------


def test_rollback_of_the_root_is_refused(director: Director) -> None:
    trusted = filled(director)
    director.rotate("root")
    trusted = verify.update(trusted, director.answer(), HOST, NOW)
    assert refused(trusted, director.answer(roots=director.roots[:1])).kind == "root_rollback"
    assert refused(trusted, director.answer(roots=director.roots[1:])).kind == "root_rollback"


def test_a_gap_in_the_roots_is_refused(director: Director) -> None:
    trusted = filled(director)
    director.rotate("root")
    director.rotate("root")
    assert refused(trusted, director.answer(have_root=2)).kind == "root_gap"


def test_more_than_256_roots_are_refused_before_any_is_verified(director: Director) -> None:
    answer = director.answer(roots=[b"{}"] * 257)
    assert refused(filled(director), answer).kind == "too_many_roots"


def test_a_root_that_only_its_own_keys_signed_is_refused(director: Director) -> None:
    trusted = filled(director)
    stranger = Director()
    root = stranger.root(2).to_bytes()
    assert refused(trusted, director.answer(roots=[root])).kind == "signature"


def test_a_root_that_only_the_keys_before_signed_is_refused(director: Director) -> None:
    trusted = filled(director)
    before = director.signers["root"]
    director.signers["root"] = [signer()]
    root = director.root(2, signed_by=before).to_bytes()
    assert refused(trusted, director.answer(roots=[root])).kind == "signature"


def test_a_root_below_its_threshold_is_refused(director: Director) -> None:
    trusted = filled(director)
    director.signers["root"].append(signer())
    director.thresholds["root"] = 2
    root = director.root(2, signed_by=director.signers["root"][:1]).to_bytes()
    assert refused(trusted, director.answer(roots=[root])).kind == "signature"


def test_an_expired_root_freezes_nothing_but_its_own_answer(director: Director) -> None:
    trusted = filled(director)
    director.rotate("root", expires=NOW)
    director.publish(BOTH)
    assert refused(trusted, director.answer()).kind == "freeze"
    director.rotate("root")
    assert verify.update(trusted, director.answer(), HOST, NOW).root_version == 3


@pytest.mark.parametrize("version", [2**63, 2**64, 0, -1, True, "2", 2.0, None])
def test_a_version_that_is_none_is_refused(director: Director, version: Any) -> None:
    trusted = filled(director)
    signers = director.signers
    raw = json.loads(director.root(2).to_bytes())
    raw["signed"]["version"] = version
    assert refused(trusted, director.answer(roots=[json.dumps(raw).encode()])).kind == "malformed"
    if isinstance(version, int):
        targets = edited(director.targets, signers["targets"], version=version)
        assert refused(trusted, director.answer(targets=targets)).kind == "malformed"


def test_the_greatest_version_is_taken(director: Director) -> None:
    trusted = filled(director)
    director.publish(UDP6, version=2**63 - 1)
    after = verify.update(trusted, director.answer(), HOST, NOW)
    assert after.targets_version == 2**63 - 1


def test_one_key_under_two_ids_does_not_meet_a_threshold_of_two() -> None:
    director = Director()
    key = director.signers["targets"][0]
    director.thresholds["targets"] = 2
    raw = json.loads(director.root(1).to_bytes())
    keyid = key.public_key.keyid
    other = "0" * 64
    raw["signed"]["keys"][other] = raw["signed"]["keys"][keyid]
    raw["signed"]["roles"]["targets"]["keyids"] = [keyid, other]
    root = edited(json.dumps(raw).encode(), director.signers["root"])
    with pytest.raises(UpdateRefused, match="under two ids"):
        verify.start(root)


# --- targets ------------------------------------------------------------------------------------


def test_rollback_of_the_targets_is_refused(director: Director) -> None:
    old = director.answer()
    director.publish(BOTH)
    trusted = filled(director)
    error = refused(trusted, old)
    assert error.kind == "targets_rollback"
    assert "targets version 2" in str(error)


def test_rollback_is_refused_also_after_everything_was_let_go(director: Director) -> None:
    old = director.answer()
    director.publish(BOTH)
    trusted = verify.let_go(filled(director))
    assert refused(trusted, old).kind == "targets_rollback"


def test_other_content_under_a_version_that_was_seen_is_refused(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH, version=director.targets_version)
    assert refused(trusted, director.answer()).kind == "mix_and_match"


def test_expired_targets_are_refused(director: Director) -> None:
    trusted = filled(director)
    director.expires = NOW
    director.publish(BOTH)
    error = refused(trusted, director.answer())
    assert error.kind == "freeze"
    assert "clock" in str(error)


def test_unsigned_targets_are_refused(director: Director) -> None:
    trusted = filled(director)
    targets = signed(director.publish(BOTH), []).to_bytes()
    assert refused(trusted, director.answer(targets=targets)).kind == "signature"


def test_targets_that_another_key_signed_are_refused(director: Director) -> None:
    trusted = filled(director)
    for keys in ([signer()], director.signers["root"], director.signers["timestamp"]):
        targets = signed(director.publish(BOTH), keys).to_bytes()
        assert refused(trusted, director.answer(targets=targets)).kind == "signature"


def test_targets_that_were_changed_after_signing_are_refused(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    targets = director.targets.replace(b'"v":1', b'"v":2')
    assert targets != director.targets
    assert refused(trusted, director.answer(targets=targets)).kind == "signature"


def test_targets_below_their_threshold_are_refused() -> None:
    keys = [signer(), signer()]
    director = Director(thresholds={"targets": 2})
    director.signers["targets"] = keys
    director.roots[:] = [director.root(1).to_bytes()]
    metadata = director.publish(UDP6)
    trusted = verify.start(director.first_root)
    one = signed(metadata, keys[:1]).to_bytes()
    assert refused(trusted, director.answer(targets=one)).kind == "signature"
    assert verify.update(trusted, director.answer(), HOST, NOW).configs


def test_one_signature_twice_is_refused(director: Director) -> None:
    data = json.loads(director.targets)
    data["signatures"] *= 2
    answer = director.answer(targets=json.dumps(data).encode())
    assert refused(verify.start(director.first_root), answer).kind == "duplicate"


def test_a_key_that_stands_twice_in_json_is_refused(director: Director) -> None:
    targets = director.targets.replace(b'"_type":', b'"_type":"targets","_type":', 1)
    answer = director.answer(targets=targets)
    assert refused(verify.start(director.first_root), answer).kind == "duplicate"


def test_a_root_in_the_place_of_targets_is_refused_and_the_other_way_round(
    director: Director,
) -> None:
    trusted = filled(director)
    answer = director.answer(targets=director.root(2).to_bytes())
    assert refused(trusted, answer).kind == "mix_and_match"
    assert refused(trusted, director.answer(roots=[director.targets])).kind == "mix_and_match"


def test_delegations_are_refused(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    metadata = director.make_targets()
    metadata.signed.delegations = Delegations({}, {})
    targets = signed(metadata, director.signers["targets"]).to_bytes()
    assert refused(trusted, director.answer(targets=targets)).kind == "delegation"


def test_configs_without_targets_are_refused(director: Director) -> None:
    answer = director.answer(targets=b"")
    assert refused(filled(director), answer).kind == "mix_and_match"


def test_endless_metadata_is_refused_before_it_is_parsed(director: Director) -> None:
    trusted = filled(director)
    big = b" " * (verify.MAX_TARGETS + 1)
    assert refused(trusted, director.answer(targets=big)).kind == "endless_data"
    big = b" " * (verify.MAX_ROOT + 1)
    assert refused(trusted, director.answer(roots=[big])).kind == "endless_data"


# --- recovery -----------------------------------------------------------------------------------


def test_fast_forward_is_recovered_from_by_rotating_the_targets_keys(director: Director) -> None:
    director.publish(BOTH, version=2**63 - 1)
    trusted = filled(director)
    director.publish(UDP6, version=3)
    assert refused(trusted, director.answer()).kind == "targets_rollback"
    director.rotate("targets")
    director.publish(UDP6, version=3)
    after = verify.update(trusted, director.answer(), HOST, NOW)
    assert (after.targets_version, set(after.configs)) == (3, set(UDP6))


def test_a_rotation_of_other_keys_keeps_the_memory_of_versions(director: Director) -> None:
    old = director.answer()
    director.publish(BOTH)
    trusted = filled(director)
    director.rotate("root", "snapshot", "timestamp")
    assert (
        refused(
            trusted,
            pb.ClientGetConfigsResponse(
                roots=director.roots[1:],
                targets=old.targets,
                target_files=old.target_files,
                client_configs=old.client_configs,
            ),
        ).kind
        == "targets_rollback"
    )


def test_files_that_we_said_we_have_serve_after_a_rotation_too(director: Director) -> None:
    trusted = filled(director)
    director.rotate("targets")
    director.publish(UDP6)
    after = verify.update(trusted, director.answer(target_files=[]), HOST, NOW)
    assert set(after.configs) == set(UDP6)


def test_expired_lets_go_and_the_same_version_fills_again(director: Director) -> None:
    trusted = filled(director)
    expired = pb.ClientGetConfigsResponse(config_status=pb.CONFIG_STATUS_EXPIRED)
    gone = verify.update(trusted, expired, HOST, NOW)
    assert (gone.configs, gone.targets_version) == ({}, 0)
    assert verify.update(gone, expired, HOST, NOW) is gone
    back = verify.update(gone, director.answer(), HOST, NOW)
    assert back.configs == trusted.configs
    assert back.targets_version == trusted.targets_version


def test_expired_of_a_client_that_holds_nothing() -> None:
    trusted = verify.start(Director().first_root)
    expired = pb.ClientGetConfigsResponse(config_status=pb.CONFIG_STATUS_EXPIRED)
    assert verify.update(trusted, expired, HOST, NOW).targets_version == 0


def test_a_status_of_a_later_version_is_refused(director: Director) -> None:
    answer = director.answer(config_status=7)
    assert refused(filled(director), answer).kind == "malformed"


# --- configs ------------------------------------------------------------------------------------


def test_a_config_for_another_host_is_refused(director: Director) -> None:
    trusted = filled(director)
    for predicate in ({"host": "gw2"}, {"group": "core"}, {"labels": {"site": "a"}}):
        director.publish(UDP6, predicates=[predicate])
        error = refused(trusted, director.answer())
        assert error.kind == "wrong_host"
        assert "gw1" in str(error)


def test_a_config_of_another_org_or_product_is_refused(director: Director) -> None:
    trusted = filled(director)
    for path in ("btfleet/2/CONNTRACK/a/b", "btfleet/1/LATER/a/b"):
        director.publish({path: b"{}"})
        assert refused(trusted, director.answer()).kind == "wrong_host"


@pytest.mark.parametrize(
    "path",
    [
        "btfleet/1/CONNTRACK/../../etc/passwd",
        "btfleet/1/CONNTRACK/../x",
        "btfleet/1/CONNTRACK/./x",
        "/btfleet/1/CONNTRACK/a/b",
        "btfleet/1/CONNTRACK/a/b/",
        "btfleet/1/CONNTRACK//b",
        "btfleet/01/CONNTRACK/a/b",
        "btfleet/1/CONNTRACK/a/b\0",
        "btfleet/1/CONNTRACK/a/" + "b" * 300,
        "other/1/CONNTRACK/a/b",
        "",
    ],
)
def test_a_path_that_is_none_is_refused(director: Director, path: str) -> None:
    trusted = filled(director)
    director.publish({path: b"{}"})
    assert refused(trusted, director.answer()).kind == "path"


def test_a_listed_config_that_nobody_signed_is_refused(director: Director) -> None:
    trusted = filled(director)
    answer = director.answer(
        client_configs=[NO_UDP6, CALM], target_files=[pb.File(path=CALM, raw=BOTH[CALM])]
    )
    assert refused(trusted, answer).kind == "unlisted"


def test_a_file_that_is_not_listed_is_refused(director: Director) -> None:
    director.publish(BOTH)
    answer = director.answer(client_configs=[NO_UDP6])
    assert refused(filled(Director()), answer).kind in ("unlisted", "signature")
    trusted = verify.start(director.first_root)
    assert refused(trusted, answer).kind == "unlisted"


def test_a_config_that_is_left_out_is_missed(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    error = refused(trusted, director.answer(client_configs=[NO_UDP6], target_files=[]))
    assert error.kind == "withheld"
    assert CALM in str(error)


def test_a_file_that_is_not_sent_is_missed(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    assert refused(trusted, director.answer(target_files=[])).kind == "withheld"


def test_things_that_stand_twice_in_the_answer_are_refused(director: Director) -> None:
    trusted = filled(director)
    director.publish(BOTH)
    honest = director.answer()
    twice = director.answer(client_configs=[*honest.client_configs, CALM])
    assert refused(trusted, twice).kind == "duplicate"
    twice = director.answer(target_files=[*honest.target_files, honest.target_files[0]])
    assert refused(trusted, twice).kind == "duplicate"


@pytest.mark.parametrize("raw", [b"", b'{"udpv6_enabled": true} ', b'{"udpv6_enabled": False}'])
def test_a_file_with_other_bytes_is_refused(director: Director, raw: bytes) -> None:
    answer = director.answer(target_files=[pb.File(path=NO_UDP6, raw=raw)])
    assert refused(verify.start(director.first_root), answer).kind == "hash"


def test_a_held_file_does_not_stand_for_a_changed_one(director: Director) -> None:
    trusted = filled(director)
    director.publish({NO_UDP6: content(udpv6_enabled=True)})
    assert refused(trusted, director.answer(target_files=[])).kind == "hash"


def with_hashes(director: Director, hashes: dict[str, str]) -> None:
    metadata = director.make_targets()
    metadata.signed.targets[NO_UDP6].hashes = hashes
    director.targets = signed(metadata, director.signers["targets"]).to_bytes()


def test_unknown_algorithms_alone_are_refused_and_never_equal(director: Director) -> None:
    director.publish(UDP6)
    trusted = filled(director)
    director.publish(UDP6)
    with_hashes(director, {"md5": hashlib.md5(UDP6[NO_UDP6]).hexdigest()})  # noqa: S324
    assert refused(trusted, director.answer()).kind == "algorithm"
    assert refused(trusted, director.answer(target_files=[])).kind == "algorithm"


def test_all_known_hashes_have_to_be_right(director: Director) -> None:
    raw = UDP6[NO_UDP6]
    good = {
        "sha256": hashlib.sha256(raw).hexdigest(),
        "sha512": hashlib.sha512(raw).hexdigest(),
        "later": "00",
    }
    trusted = verify.start(director.first_root)
    with_hashes(director, good)
    assert verify.update(trusted, director.answer(), HOST, NOW).configs
    for name in ("sha256", "sha512"):
        with_hashes(director, {**good, name: "0" * len(good[name])})
        assert refused(trusted, director.answer()).kind == "hash"


def test_a_file_of_endless_length_is_refused(director: Director) -> None:
    director.publish({NO_UDP6: b" " * 70000})
    answer = director.answer()
    assert refused(verify.start(director.first_root), answer).kind == "endless_data"


@pytest.mark.parametrize(
    "custom",
    [{}, {"v": 0}, {"v": 2**63}, {"v": "1"}, {"v": 1, "expires": -1}, {"v": 1, "predicates": {}}],
)
def test_custom_fields_that_are_wrong_are_refused(
    director: Director, custom: dict[str, Any]
) -> None:
    director.customs[NO_UDP6] = custom
    director.sign_targets()
    answer = director.answer()
    assert refused(verify.start(director.first_root), answer).kind == "malformed"


# --- time ---------------------------------------------------------------------------------------


def test_a_config_ends_at_its_time_without_any_answer(director: Director) -> None:
    director.publish(UDP6, expires=NOW + 60)
    trusted = filled(director)
    assert set(verify.in_force(trusted, NOW + 59)) == set(UDP6)
    assert verify.in_force(trusted, NOW + 60) == {}


def test_a_config_long_expired_is_refused_and_may_be_left_out(director: Director) -> None:
    director.publish(UDP6, expires=NOW - CLOCK_TOLERANCE)
    trusted = verify.start(director.first_root)
    assert refused(trusted, director.answer()).kind == "freeze"
    after = verify.update(trusted, director.answer(client_configs=[], target_files=[]), HOST, NOW)
    assert after.configs == {}


@pytest.mark.parametrize("offset", [-CLOCK_TOLERANCE + 1, CLOCK_TOLERANCE - 1])
def test_a_clock_one_hour_wrong_refuses_no_config(director: Director, offset: int) -> None:
    director.publish(UDP6, expires=NOW)
    trusted = verify.start(director.first_root)
    now = NOW + offset
    listed = verify.update(trusted, director.answer(), HOST, now)
    left_out = verify.update(
        trusted, director.answer(client_configs=[], target_files=[]), HOST, now
    )
    assert (set(listed.configs), set(left_out.configs)) == (set(UDP6), set())


def test_held_targets_end_an_hour_after_their_expiry_and_come_back(director: Director) -> None:
    trusted = filled(director)
    end = director.expires + CLOCK_TOLERANCE
    assert verify.in_force(trusted, end - 1)
    assert verify.frozen(trusted, end - 1) is None
    assert verify.in_force(trusted, end) == {}
    assert str(verify.frozen(trusted, end)).startswith("freeze: ")
    # the clock was wrong, and is put right
    assert verify.in_force(trusted, NOW)


def test_an_expired_root_ends_what_its_keys_signed(director: Director) -> None:
    director.rotate(expires=NOW + 60)
    director.publish(UDP6)
    trusted = filled(director)
    end = NOW + 60 + CLOCK_TOLERANCE
    assert verify.in_force(trusted, end - 1)
    assert verify.in_force(trusted, end) == {}
    assert "root version 2" in str(verify.frozen(trusted, end))


# --- from the disk ------------------------------------------------------------------------------


def stored(trusted: Trusted, **other: Any) -> Stored:
    fields: dict[str, Any] = {
        "roots": trusted.roots,
        "targets": trusted.targets.raw if trusted.targets else None,
        "files": {path: config.raw for path, config in trusted.configs.items()},
        "refill": trusted.refill,
        "host_digest": HOST.digest,
    }
    return Stored(**{**fields, **other})


def test_the_state_comes_back_as_it_was(director: Director) -> None:
    director.rotate("root")
    director.publish(BOTH)
    trusted = filled(director)
    assert verify.restore(director.first_root, stored(trusted), HOST) == trusted
    gone = verify.let_go(trusted)
    assert verify.restore(director.first_root, stored(gone), HOST) == gone


def test_nothing_stored_is_a_start() -> None:
    root = Director().first_root
    empty = Stored((), None, {}, False, "")
    assert verify.restore(root, empty, HOST) == verify.start(root)


def test_an_offline_boot_after_expiry_loses_nothing(director: Director) -> None:
    trusted = filled(director)
    back = verify.restore(director.first_root, stored(trusted), HOST)
    assert verify.in_force(back, director.expires + 10 * DAY) == {}
    assert verify.in_force(back, director.expires - 1) == trusted.configs


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"files": {NO_UDP6: b"{}"}}, "hash"),
        ({"files": {CALM: b"{}"}}, "unlisted"),
        ({"targets": b"{}"}, "malformed"),
        ({"roots": (b"x",)}, "malformed"),
    ],
)
def test_a_disk_that_was_changed_is_refused(
    director: Director, change: dict[str, Any], kind: str
) -> None:
    with pytest.raises(UpdateRefused) as caught:
        verify.restore(director.first_root, stored(filled(director), **change), HOST)
    assert caught.value.kind == kind


def test_another_directors_state_is_refused(director: Director) -> None:
    with pytest.raises(UpdateRefused, match="not the first root"):
        verify.restore(Director().first_root, stored(filled(director)), HOST)


def test_a_newer_first_root_is_trusted_and_keeps_what_it_vouches_for(director: Director) -> None:
    trusted = filled(director)
    newer = director.rotate("root")
    back = verify.restore(newer, stored(trusted), HOST)
    assert (back.root_version, back.configs) == (2, trusted.configs)
    newest = director.rotate("targets")
    back = verify.restore(newest, stored(trusted), HOST)
    assert (back.root_version, back.targets, back.configs) == (3, None, {})


def test_a_first_root_in_the_middle_of_the_chain_is_followed(director: Director) -> None:
    director.rotate("root")
    director.rotate("root")
    trusted = filled(director)
    back = verify.restore(director.roots[1], stored(trusted), HOST)
    assert (back.root_version, back.configs) == (3, trusted.configs)


def test_a_host_that_has_become_another_is_filled_anew(director: Director) -> None:
    director.publish(UDP6, predicates=[{"labels": {"site": "b"}}])
    trusted = filled(director)
    moved = replace(HOST, facts=HostFacts("gw1", frozenset(), {"site": "c"}))
    back = verify.restore(director.first_root, stored(trusted), moved)
    assert (back.configs, back.targets_version) == ({}, 0)
    more = replace(HOST, facts=HOST.facts._replace(groups=frozenset({"edge", "core"})))
    back = verify.restore(director.first_root, stored(trusted), more)
    assert (back.configs, back.targets_version) == (trusted.configs, 0)


def test_a_first_root_that_is_none_is_refused() -> None:
    director = Director()
    for raw in (b"", b"{}", director.targets, director.root(1, signed_by=[signer()]).to_bytes()):
        with pytest.raises(UpdateRefused):
            verify.start(raw)


# --- python-tuf's own client agrees -------------------------------------------------------------


class _Memory(FetcherInterface):
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Any:
        from tuf.api.exceptions import DownloadHTTPError  # noqa: PLC0415

        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError("not found", 404)
        return iter([self.files[name]])


def _honest(_director: Director) -> None:
    pass


def _rotated(director: Director) -> None:
    director.rotate("root", "targets", "snapshot", "timestamp")
    director.publish(BOTH)


def _foreign_root(director: Director) -> None:
    director.roots.append(Director().root(2).to_bytes())


def _unsigned_by_old(director: Director) -> None:
    director.signers["root"] = [signer()]
    director.roots.append(director.root(2).to_bytes())


def _unsigned_by_new(director: Director) -> None:
    before = director.signers["root"]
    director.signers["root"] = [signer()]
    director.roots.append(director.root(2, signed_by=before).to_bytes())


def _skipped(director: Director) -> None:
    director.roots.append(director.root(3).to_bytes())


def _foreign_targets(director: Director) -> None:
    director.targets = signed(director.make_targets(), [signer()]).to_bytes()


def _expired_root(director: Director) -> None:
    director.rotate(expires=NOW)


def _expired_targets(director: Director) -> None:
    director.expires = NOW
    metadata = director.make_targets()
    director.expires = NOW + DAY
    director.targets = metadata.to_bytes()


@pytest.mark.parametrize(
    ("change", "is_good"),
    [
        (_honest, True),
        (_rotated, True),
        (_foreign_root, False),
        (_unsigned_by_old, False),
        (_unsigned_by_new, False),
        (_skipped, False),
        (_foreign_targets, False),
        (_expired_root, False),
        (_expired_targets, False),
    ],
)
def test_python_tufs_own_client_decides_alike(
    director: Director,
    tmp_path: Any,
    change: Callable[[Director], None],
    is_good: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tuf.ngclient._internal.trusted_metadata_set as internal  # noqa: PLC0415

    class _Clock(internal.datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ARG003
            return when(NOW)

    monkeypatch.setattr(internal.datetime, "datetime", _Clock)
    change(director)
    updater = Updater(
        str(tmp_path),
        "http://none/",
        fetcher=_Memory(director.repository()),
        config=UpdaterConfig(max_root_rotations=10),
        bootstrap=director.first_root,
    )
    try:
        updater.refresh()
        theirs = True
    except Exception:  # noqa: BLE001 whatever it says, it says no
        theirs = False
    try:
        verify.update(verify.start(director.first_root), director.answer(), HOST, NOW)
        ours = True
    except UpdateRefused:
        ours = False
    assert (theirs, ours) == (is_good, is_good)


# --- fuzz ---------------------------------------------------------------------------------------

_DIRECTOR = Director()
_DIRECTOR.publish(BOTH)
_TRUSTED = filled(_DIRECTOR)
_NEXT = Director(signers=_DIRECTOR.signers)
_NEXT.publish({**BOTH, NO_UDP6: content(udpv6_enabled=True)}, version=9)
_HONEST = _NEXT.answer(roots=[])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def outcome(answer: pb.ClientGetConfigsResponse) -> Trusted | str:
    """The state, or the line of the refusal."""
    try:
        return verify.update(_TRUSTED, answer, HOST, NOW)
    except UpdateRefused as exc:
        return str(exc)


def takes_or_refuses(answer: pb.ClientGetConfigsResponse) -> None:
    """Nothing but a whole honest answer is ever taken."""
    after = outcome(answer)
    if isinstance(after, str):
        assert len(after) < 2000
        assert "\n" not in after
        return
    honest = verify.update(_TRUSTED, _HONEST, HOST, NOW)
    assert after is _TRUSTED or after.configs in ({}, honest.configs)


@given(st.binary(max_size=300))
def test_random_bytes_do_no_harm(raw: bytes) -> None:
    answer = pb.ClientGetConfigsResponse()
    try:
        answer.ParseFromString(raw)
    except Exception:  # noqa: BLE001 the library's own error, which gRPC turns into a status
        return
    takes_or_refuses(answer)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_one_changed_byte_does_no_harm(place: int, byte: int) -> None:
    raw = bytearray(_HONEST.SerializeToString())
    raw[place % len(raw)] = byte
    answer = pb.ClientGetConfigsResponse()
    try:
        answer.ParseFromString(bytes(raw))
    except Exception:  # noqa: BLE001
        return
    takes_or_refuses(answer)


@given(st.binary(max_size=100), st.binary(max_size=100), st.text(max_size=50), _JSON)
def test_random_parts_do_no_harm(root: bytes, targets: bytes, path: str, value: Any) -> None:
    takes_or_refuses(_NEXT.answer(roots=[root]))
    takes_or_refuses(_NEXT.answer(roots=[], targets=targets or b"x"))
    takes_or_refuses(_NEXT.answer(roots=[], client_configs=[path]))
    text = json.dumps(value).encode()
    takes_or_refuses(_NEXT.answer(roots=[text]))
    takes_or_refuses(_NEXT.answer(roots=[], targets=text))


@given(
    st.sampled_from(["version", "expires", "targets", "_type", "spec_version", "delegations", "x"]),
    _JSON,
)
def test_signed_nonsense_does_no_harm(name: str, value: Any) -> None:
    """What the director's own keys signed may be wrong too."""
    try:
        targets = edited(_NEXT.targets, _NEXT.signers["targets"], **{name: value})
        root = edited(_DIRECTOR.root(2).to_bytes(), _NEXT.signers["root"], **{name: value})
    except Exception:  # noqa: BLE001 floats have no canonical form, so nobody can sign them
        return
    for answer in (_NEXT.answer(roots=[], targets=targets), _NEXT.answer(roots=[root])):
        assert "\n" not in str(outcome(answer))


@given(_JSON, _JSON, _JSON)
def test_signed_targets_with_nonsense_inside_do_no_harm(
    length: Any, hashes: Any, custom: Any
) -> None:
    targets = {NO_UDP6: {"length": length, "hashes": hashes, "custom": custom}}
    try:
        raw = edited(_NEXT.targets, _NEXT.signers["targets"], targets=targets)
    except Exception:  # noqa: BLE001
        return
    for listed in ([NO_UDP6], []):
        answer = _NEXT.answer(roots=[], targets=raw, client_configs=listed, target_files=[])
        assert "\n" not in str(outcome(answer))
