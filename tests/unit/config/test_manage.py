# SPDX-License-Identifier: GPL-3.0-or-later
"""From any state to any wanted one: what is planned, what is refused, what is counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet._config import effective_load, manage, remote
from btfleet._config.manage import State, Wish
from btfleet._config.remote import Effective
from btfleet._kernel.bpf import bpf
from btfleet._kernel.errors import AssetReadError, InvalidSpec, LoaderError
from btfleet._kernel.loader import access, telemetry
from btfleet._kernel.loader.load import Tracker
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store, write_atomically

from tests.unit.kernel_access import bpffs_at, hash_map, needs_bpf

SPEC = Spec("a" * 64)
OTHER = Spec("b" * 64, max_entries=4096)
ONE, TWO = SPEC.to_dict(), OTHER.to_dict()
WISH = Wish(SPEC, remote.base_alone(SPEC))
NOTHING = State()
INSTALLED = State(ONE, SPEC.object_sha256, files=True)
LOADED = State(ONE, SPEC.object_sha256, ONE, files=True)
DRIFTED = State(ONE, SPEC.object_sha256, ONE, ("pin link_insert is missing",), files=True)
OBJECT_GONE = State(ONE, None, ONE, files=True)
OTHER_LOADED = State(TWO, OTHER.object_sha256, TWO, files=True)


@pytest.mark.parametrize(
    ("now", "wanted", "after"),
    [
        (NOTHING, "installed", INSTALLED),
        (NOTHING, "loaded", LOADED),
        (NOTHING, "unloaded", NOTHING),
        (NOTHING, "absent", NOTHING),
        (INSTALLED, "installed", INSTALLED),
        (INSTALLED, "loaded", LOADED),
        (INSTALLED, "unloaded", INSTALLED),
        (INSTALLED, "absent", NOTHING),
        (LOADED, "installed", LOADED),
        (LOADED, "loaded", LOADED),
        (LOADED, "unloaded", INSTALLED),
        (LOADED, "absent", NOTHING),
        (DRIFTED, "installed", DRIFTED),
        (DRIFTED, "loaded", LOADED),
        (DRIFTED, "unloaded", INSTALLED),
        (OBJECT_GONE, "loaded", LOADED),
        (OTHER_LOADED, "loaded", LOADED),
        (OTHER_LOADED, "installed", State(ONE, SPEC.object_sha256, TWO, files=True)),
        (State(files=True), "absent", NOTHING),
        (State(files=True), "unloaded", State(files=True)),
    ],
)
def test_a_plan(now: State, wanted: str, after: State) -> None:
    assert manage.plan(now, wanted, WISH) == after


@pytest.mark.parametrize("wanted", manage.STATES)
def test_a_plan_that_was_reached_has_nothing_left_to_do(wanted: str) -> None:
    for now in (NOTHING, INSTALLED, LOADED, DRIFTED, OBJECT_GONE, OTHER_LOADED):
        after = manage.plan(now, wanted, WISH)
        assert manage.plan(after, wanted, WISH) == after


@pytest.mark.parametrize("wanted", ["installed", "loaded"])
def test_a_plan_needs_a_spec(wanted: str) -> None:
    with pytest.raises(InvalidSpec, match=f"state {wanted} needs a spec"):
        manage.plan(NOTHING, wanted, None)


def test_a_diff_shows_files_spec_and_drift() -> None:
    assert DRIFTED.to_dict() == {
        "drift": ["pin link_insert is missing"],
        "loaded": ONE,
        "object_file": "a" * 64,
        "remote_config_keys": [],
        "spec_file": ONE,
    }


KEYS = frozenset({"CONNTRACK.udpv6_enabled"})
NO_UDP6 = replace(SPEC, udpv6_enabled=False)


def test_a_plan_loads_the_effective_spec_and_writes_the_base() -> None:
    wish = Wish(SPEC, Effective(NO_UDP6, {}), KEYS)
    after = manage.plan(NOTHING, "loaded", wish)
    assert (after.spec_file, after.loaded) == (ONE, NO_UDP6.to_dict())
    assert after.remote_keys == ("CONNTRACK.udpv6_enabled",)
    assert manage.plan(after, "loaded", wish) == after


def test_keys_that_nobody_names_stay() -> None:
    now = replace(LOADED, remote_keys=("CONNTRACK.tiers",))
    assert manage.plan(now, "loaded", WISH) == now
    assert manage.plan(now, "installed", WISH) == now
    assert manage.plan(now, "loaded", Wish(SPEC, WISH.effective, frozenset())) == LOADED
    assert manage.plan(now, "absent", None) == NOTHING
    assert manage.plan(now, "unloaded", None).remote_keys == ("CONNTRACK.tiers",)


# --- doing ---------------------------------------------------------------------------------------


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    """One without bpffs: nothing can be loaded, everything else can be done."""
    store = Store(
        str(tmp_path / "etc" / "spec.json"),
        str(tmp_path / "var"),
        str(tmp_path / "agent" / "wanted.json"),
        str(tmp_path / "run" / "applied.json"),
    )
    return Tracker(store, str(tmp_path / "bpf" / "btfleet"), str(tmp_path / "run" / "lock"))


@pytest.fixture
def spec(own_object: bytes) -> Spec:
    return Spec(hashlib.sha256(own_object).hexdigest())


def wish(spec: Spec) -> Wish:
    return Wish(spec, remote.base_alone(spec))


def counted(tracker: Tracker) -> list[tuple[object, object]]:
    return [(row["result"], row["count"]) for row in telemetry.read(tracker.store)]


def test_install_writes_object_and_spec(tracker: Tracker, spec: Spec, own_object: bytes) -> None:
    manage.reach(tracker, "installed", wish(spec), own_object)
    state, loaded = manage.read(tracker)
    assert state == State(spec.to_dict(), spec.object_sha256, files=True)
    assert loaded.record is None
    assert counted(tracker) == []


def test_another_install_drops_the_former_object(tracker: Tracker) -> None:
    tracker.store.write_object(b"former")
    tracker.store.write_object(b"other")
    digest = hashlib.sha256(b"former").hexdigest()
    manage.reach(tracker, "installed", wish(Spec(digest)), None)
    assert tracker.store.objects() == [digest]


@pytest.mark.parametrize(
    ("wanted", "content", "message"),
    [
        ("installed", b"", "is empty"),
        ("loaded", b"", "is empty"),
        ("loaded", b"nonsense", "is not an ELF file"),
        ("installed", b"\x7fELF" + bytes(10), "is truncated or corrupt"),
        ("installed", None, "cannot read the object"),
    ],
)
def test_a_bad_object_is_refused_counted_once_and_leaves_nothing(
    tracker: Tracker, spec: Spec, wanted: str, content: bytes | None, message: str
) -> None:
    with pytest.raises(AssetReadError, match=message):
        manage.reach(tracker, wanted, wish(spec), content)
    assert counted(tracker) == [("asset_read", 1)]
    assert tracker.store.read_spec() is None
    assert tracker.store.objects() == []


@needs_bpf
def test_a_missing_object_is_counted_once_by_a_load(
    tracker: Tracker, spec: Spec, tmp_path: Path
) -> None:
    with bpffs_at(tmp_path / "bpf"), pytest.raises(AssetReadError, match="cannot read the object"):
        manage.reach(tracker, "loaded", wish(spec), None)
    assert counted(tracker) == [("asset_read", 1)]
    assert tracker.store.read_spec() is None


def test_another_digest_than_the_specs_is_refused(tracker: Tracker, own_object: bytes) -> None:
    with pytest.raises(AssetReadError, match=f"needed: {SPEC.object_sha256}"):
        manage.reach(tracker, "installed", wish(SPEC), own_object)
    assert tracker.store.objects() == []


def test_a_refusal_keeps_the_former_spec_and_object(
    tracker: Tracker, spec: Spec, own_object: bytes
) -> None:
    manage.reach(tracker, "installed", wish(spec), own_object)
    with pytest.raises(AssetReadError):
        manage.reach(tracker, "installed", wish(SPEC), b"nonsense")
    assert manage.read(tracker)[0] == State(spec.to_dict(), spec.object_sha256, files=True)


def test_a_load_that_fails_writes_no_spec(tracker: Tracker, spec: Spec, own_object: bytes) -> None:
    """It would be what boots next."""
    Path(tracker.folder).parent.mkdir()
    with pytest.raises(LoaderError, match="no bpf file system"):
        manage.reach(tracker, "loaded", wish(spec), own_object)
    assert tracker.store.read_spec() is None


def test_absent_leaves_nothing(tracker: Tracker, spec: Spec, own_object: bytes) -> None:
    manage.reach(tracker, "installed", wish(spec), own_object)
    manage.reach(tracker, "absent", None, None)
    assert manage.read(tracker)[0] == NOTHING
    assert not Path(tracker.store.state_folder).exists()
    assert not Path(tracker.store.spec_path).parent.exists()


def test_unloaded_keeps_the_files(tracker: Tracker, spec: Spec, own_object: bytes) -> None:
    manage.reach(tracker, "installed", wish(spec), own_object)
    before = manage.read(tracker)[0]
    manage.reach(tracker, "unloaded", None, None)
    assert manage.read(tracker)[0] == before


@pytest.mark.parametrize("content", [b"nonsense", b"{}", b"\xff"])
def test_a_damaged_spec_file_counts_as_none(tracker: Tracker, content: bytes) -> None:
    write_atomically(tracker.store.spec_path, content)
    assert manage.read(tracker)[0] == State(files=True)


def test_a_damaged_object_file_counts_as_none(
    tracker: Tracker, spec: Spec, own_object: bytes
) -> None:
    manage.reach(tracker, "installed", wish(spec), own_object)
    Path(tracker.store.object_path(spec.object_sha256)).write_bytes(b"damaged")
    assert manage.read(tracker)[0] == State(spec.to_dict(), None, files=True)


@pytest.fixture
def unloaded_host(tmp_path: Path) -> Iterator[Path]:
    with bpffs_at(tmp_path / "bpf") as mount:
        yield mount


@needs_bpf
def test_a_check_refuses_what_a_load_would_and_changes_nothing(
    tracker: Tracker, spec: Spec, own_object: bytes, unloaded_host: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert unloaded_host in before
    with pytest.raises(AssetReadError, match="not an ELF file"):
        manage.check(tracker, wish(spec), b"nonsense")
    with pytest.raises(AssetReadError, match="cannot read the object"):
        manage.check(tracker, wish(spec), None)
    with pytest.raises(AssetReadError, match="needed: "):
        manage.check(tracker, wish(SPEC), own_object)
    assert sorted(tmp_path.rglob("*")) == before


# --- remote config -------------------------------------------------------------------------------


def test_keys_are_installed_and_taken_away(tracker: Tracker, spec: Spec, own_object: bytes) -> None:
    manage.reach(tracker, "installed", replace(wish(spec), remote_keys=KEYS), own_object)
    assert manage.read(tracker)[0].remote_keys == ("CONNTRACK.udpv6_enabled",)
    manage.reach(tracker, "installed", wish(spec), None)
    assert manage.read(tracker)[0].remote_keys == ("CONNTRACK.udpv6_enabled",)
    manage.reach(tracker, "installed", replace(wish(spec), remote_keys=frozenset()), None)
    assert manage.read(tracker)[0].remote_keys == ()


def test_a_damaged_list_of_keys_is_replaced(tracker: Tracker) -> None:
    write_atomically(tracker.store.remote_path, b"{")
    now, _loaded = manage.read(tracker)
    assert now.remote_keys == ("(damaged)",)
    assert manage.plan(now, "installed", replace(WISH, remote_keys=KEYS)).remote_keys == tuple(KEYS)


def test_absent_takes_keys_and_answers_along(
    tracker: Tracker, spec: Spec, own_object: bytes
) -> None:
    manage.reach(tracker, "installed", replace(wish(spec), remote_keys=KEYS), own_object)
    remote.write_answer(tracker.store, remote.Answer(None, "failed", None, "no", 1))
    write_atomically(tracker.lock_path, b"")  # as a load leaves it
    manage.reach(tracker, "absent", None, None)
    assert manage.read(tracker)[0] == NOTHING
    assert not Path(tracker.store.applied_path).parent.exists()
    assert not Path(tracker.store.spec_path).parent.exists()


def test_a_wish_has_what_remote_config_wants(tracker: Tracker) -> None:
    path = "btfleet/1/CONNTRACK/a/b"
    settings, owners = {"udpv6_enabled": False}, {"udpv6_enabled": path}
    request = remote.request_of(settings, owners)
    wanted = {"request": request, "settings": settings, "owners": owners}
    write_atomically(tracker.store.wanted_path, json.dumps(wanted).encode())
    assert Wish.of(tracker, SPEC).effective.spec == SPEC  # no key is allowed yet
    made = Wish.of(tracker, SPEC, KEYS)
    assert made.effective.spec == NO_UDP6
    assert made.effective.owners["udpv6_enabled"] == path
    # a spec that has failed is not wished for again
    answer = remote.Answer(request, "failed", NO_UDP6.fingerprint, "out of memory", 1)
    remote.write_answer(tracker.store, answer)
    assert Wish.of(tracker, SPEC, KEYS).effective == effective_load.choose(
        tracker.store, SPEC, KEYS
    )
    assert Wish.of(tracker, SPEC, KEYS).effective.reason == "out of memory"


@needs_bpf
def test_pins_that_the_group_cannot_read_are_drift(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group was made after the load."""
    with bpffs_at(tmp_path / "bpf"), hash_map(4, 8, 8) as one:
        Path(tracker.folder).mkdir(mode=0o700)
        bpf.obj_pin(one, tracker.pins.path("conntrack_live"))
        assert not any("group or mode" in line for line in manage.read(tracker)[0].drift)
        monkeypatch.setattr(access, "group_id", lambda: 54321)
        drift = manage.read(tracker)[0].drift
        assert "group or mode of conntrack_live, btfleet is not as it should be" in drift
        access.grant(tracker.folder, 54321)
        assert not any("group or mode" in line for line in manage.read(tracker)[0].drift)
