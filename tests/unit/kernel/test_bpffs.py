# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins are swapped whole: whenever a loader dies, the old set or the new one stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf, calls
from btfleet._kernel.bpf.bpffs import Pins, check_mounted
from btfleet._kernel.errors import LoaderError

from tests.unit.kernel_access import bpffs_at, hash_map, needs_bpf

NAMES = ("link_a", "link_b", "map_c", "loaded")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    with bpffs_at(tmp_path / "bpf") as folder:
        yield folder


@pytest.fixture
def pins(mount: Path) -> Pins:
    return Pins(str(mount / "btfleet"), "loaded")


class Maps:
    """Sets of maps that stand for a tracker's maps, links and record."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def make(self, names: tuple[str, ...] = NAMES) -> dict[str, int]:
        return {name: self._stack.enter_context(hash_map(4, 4, 1)) for name in names}


@pytest.fixture
def maps() -> Iterator[Maps]:
    with ExitStack() as stack:
        yield Maps(stack)


def ids(descriptors: dict[str, int]) -> dict[str, int]:
    return {name: bpf.map_info(fd).id for name, fd in descriptors.items()}


def pinned(pins: Pins) -> dict[str, int]:
    found = {}
    for name in pins.names():
        fd = pins.open(name)
        assert fd is not None
        with bpf.closing(fd):
            found[name] = bpf.map_info(fd).id
    return found


@needs_bpf
def test_a_set_is_pinned(pins: Pins, maps: Maps) -> None:
    assert pins.names() == []
    new = maps.make()
    pins.replace(new)
    assert pinned(pins) == ids(new)
    assert os.stat(pins.folder).st_mode & 0o777 == 0o700


@needs_bpf
def test_another_set_takes_its_place(pins: Pins, maps: Maps) -> None:
    pins.replace(maps.make())
    new = maps.make()
    pins.replace(new)
    assert pinned(pins) == ids(new)


@needs_bpf
def test_what_the_new_set_does_not_name_goes(pins: Pins, maps: Maps) -> None:
    pins.replace(maps.make())
    new = maps.make(("link_a", "loaded"))
    pins.replace(new)
    assert pinned(pins) == ids(new)


@needs_bpf
def test_a_missing_pin_has_no_descriptor(pins: Pins, maps: Maps) -> None:
    assert pins.open("loaded") is None
    pins.replace(maps.make(("loaded",)))
    assert pins.open("link_a") is None


@needs_bpf
def test_a_pin_that_cannot_be_made_leaves_the_old_set(pins: Pins, maps: Maps) -> None:
    old, new = maps.make(), maps.make()
    pins.replace(old)
    with open(os.devnull, encoding="ascii") as stream:
        new["map_c"] = stream.fileno()
        with pytest.raises(LoaderError) as caught:
            pins.replace(new)
    assert str(caught.value).startswith(f"cannot pin map_c in {pins.folder} (")
    assert pinned(pins) == ids(old)


@needs_bpf
@pytest.mark.parametrize("first", [True, False], ids=["nothing-before", "a-set-before"])
@pytest.mark.parametrize("made", range(len(NAMES)))
def test_killed_while_pinning_it_goes_back(pins: Pins, maps: Maps, made: int, first: bool) -> None:
    """The record is pinned last: without it the new set is not complete."""
    old = {} if first else maps.make()
    if old:
        pins.replace(old)
    os.makedirs(pins.folder, exist_ok=True)
    new = maps.make()
    for name in NAMES[:made]:
        bpf.obj_pin(new[name], pins.path(f"new_{name}"))
    pins.recover()
    assert pinned(pins) == ids(old)


@needs_bpf
@pytest.mark.parametrize("first", [True, False], ids=["nothing-before", "a-set-before"])
@pytest.mark.parametrize("renamed", range(len(NAMES) + 1))
def test_killed_while_renaming_it_goes_forward(
    pins: Pins, maps: Maps, renamed: int, first: bool
) -> None:
    old = {} if first else maps.make()
    if old:
        pins.replace(old)
    os.makedirs(pins.folder, exist_ok=True)
    new = maps.make()
    for name in NAMES:
        bpf.obj_pin(new[name], pins.path(f"new_{name}"))
    for name in NAMES[:renamed]:
        os.rename(pins.path(f"new_{name}"), pins.path(name))
    pins.recover()
    assert pinned(pins) == ids(new)


@needs_bpf
@pytest.mark.parametrize("step", range(2 * len(NAMES)))
def test_killed_at_any_call_of_a_replacement_a_whole_set_stands(
    pins: Pins, maps: Maps, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same by the code itself: no call is made after the one that it dies at."""
    old, new = maps.make(), maps.make()
    pins.replace(old)
    real_pin, real_rename = bpf.obj_pin, os.rename
    left = step

    class Killed(BaseException):
        pass

    def dying(call: object, *arguments: object) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        call(*arguments)  # type: ignore[operator]

    with monkeypatch.context() as patch:
        patch.setattr(calls, "obj_pin", lambda *a: dying(real_pin, *a))
        patch.setattr(os, "rename", lambda *a: dying(real_rename, *a))
        with pytest.raises(Killed):
            pins.replace(new)
    Pins(pins.folder, "loaded").recover()
    assert pinned(pins) == ids(new if step >= len(NAMES) else old)


@needs_bpf
def test_recovery_of_what_is_whole_or_absent_changes_nothing(pins: Pins, maps: Maps) -> None:
    pins.recover()
    old = maps.make()
    pins.replace(old)
    pins.recover()
    assert pinned(pins) == ids(old)


@needs_bpf
def test_removal_takes_links_first_and_the_folder_last(
    pins: Pins, maps: Maps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or programs would write to maps that nobody sees."""
    pins.replace(maps.make(("map_a", "link_z", "loaded")))
    removed: list[str] = []
    real = os.unlink

    def recorded(path: str) -> None:
        removed.append(os.path.basename(path))
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", recorded)
        pins.remove()
    assert removed == ["link_z", "loaded", "map_a"]
    assert not os.path.exists(pins.folder)
    pins.remove()


@needs_bpf
def test_a_mounted_bpf_file_system_is_recognised(mount: Path) -> None:
    check_mounted(str(mount))


def test_another_file_system_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(LoaderError) as caught:
        check_mounted(str(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"no bpf file system at {tmp_path} (found type 0x")
    assert f"run `mount -t bpf bpf {tmp_path}`" in message
    assert len(message.splitlines()) == 1


def test_a_missing_mount_point_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoaderError) as caught:
        check_mounted(str(tmp_path / "none"))
    assert str(caught.value) == (
        f"{tmp_path}/none cannot be read (No such file or directory): mount bpffs there"
    )
