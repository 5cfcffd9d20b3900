# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps are read in batches to the last entry, each once; bpftool is the second opinion."""

from __future__ import annotations

import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf

from tests.unit.kernel_access import (
    bpffs_at,
    bpftool,
    hash_map,
    needs_bpf,
    tracker_map,
)

pytestmark = needs_bpf
Entries = list[tuple[bytes, bytes]]


def records(chunks: Iterator[tuple[bytes, bytes]], key_size: int, value_size: int) -> Entries:
    found = []
    for keys, values in chunks:
        assert len(keys) % key_size == 0
        assert len(keys) // key_size == len(values) // value_size
        found += [
            (
                keys[index * key_size : (index + 1) * key_size],
                values[index * value_size : (index + 1) * value_size],
            )
            for index in range(len(keys) // key_size)
        ]
    return found


def filled(fd: int, count: int) -> dict[bytes, bytes]:
    entries = {
        struct.pack("=I40x", number): struct.pack("=Q56x", number * 3) for number in range(count)
    }
    for key, value in entries.items():
        bpf.map_update(fd, key, value)
    return entries


def test_batches_are_what_bpftool_dumps() -> None:
    with tracker_map(4096) as fd:
        entries = filled(fd, 1000)
        info = bpf.map_info(fd)
        dumped = {
            bytes(int(byte, 16) for byte in row["key"]): bytes(
                int(byte, 16) for byte in row["value"]
            )
            for row in bpftool("map", "dump", "id", str(info.id))
        }
        assert dumped == entries
        assert dict(records(bpf.map_batches(fd, info), 44, 64)) == dumped


def test_what_bpftool_writes_is_read() -> None:
    with hash_map(4, 4, 16) as fd:
        map_id = str(bpf.map_info(fd).id)
        bpftool(*f"map update id {map_id} key 1 2 3 4 value 5 6 7 8".split())
        assert bpf.map_lookup(fd, bytes([1, 2, 3, 4]), 4) == bytes([5, 6, 7, 8])
        assert records(bpf.map_batches(fd, bpf.map_info(fd)), 4, 4) == [
            (bytes([1, 2, 3, 4]), bytes([5, 6, 7, 8]))
        ]


def test_a_map_is_described_as_bpftool_does() -> None:
    with bpf.closing(bpf.map_create(bpf.LRU_HASH, 44, 64, 512, "a_name")) as fd:
        info = bpf.map_info(fd)
        shown = bpftool("map", "show", "id", str(info.id))
    assert (shown["type"], info.type) == ("lru_hash", bpf.LRU_HASH)
    assert (info.key_size, info.value_size) == (shown["bytes_key"], shown["bytes_value"])
    assert (info.max_entries, info.name) == (shown["max_entries"], shown["name"])
    assert info.name == "a_name"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8192, 20000])
def test_every_entry_comes_once(count: int) -> None:
    with tracker_map(max(count, 1)) as fd:
        entries = filled(fd, count)
        info = bpf.map_info(fd)
        found = records(bpf.map_batches(fd, info), 44, 64)
        assert len(found) == count
        assert dict(found) == entries
        assert bpf.map_fill(fd, info) == count


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_a_batch_that_is_smaller_than_a_bucket_grows(size: int) -> None:
    with tracker_map(2048) as fd:
        entries = filled(fd, 2000)
        found = records(bpf.map_batches(fd, bpf.map_info(fd), count=size), 44, 64)
    assert len(found) == 2000
    assert dict(found) == entries


def test_growth_keeps_the_position(monkeypatch: pytest.MonkeyPatch) -> None:
    grown: list[int] = []
    original = bpf._BatchReader.grown

    def recorded(reader: bpf._BatchReader) -> bpf._BatchReader:
        grown.append(reader.count)
        return original(reader)

    monkeypatch.setattr(bpf._BatchReader, "grown", recorded)
    with tracker_map(2048) as fd:
        filled(fd, 2000)
        found = records(bpf.map_batches(fd, bpf.map_info(fd), count=1), 44, 64)
    assert grown, "some bucket of 2000 entries has two"
    assert len({key for key, _value in found}) == len(found) == 2000


def test_key_by_key_gives_the_same() -> None:
    """For kernels before 5.6."""
    with tracker_map(2048) as fd:
        entries = filled(fd, 1500)
        found = records(bpf._one_by_one(fd, bpf.map_info(fd)), 44, 64)
    assert len(found) == 1500
    assert dict(found) == entries


def test_a_kernel_without_batches_is_read_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_reader: object, first: bool) -> tuple[bytes, bytes, bool]:
        assert first
        raise OSError(bpf.EINVAL, "Invalid argument")

    monkeypatch.setattr(bpf._BatchReader, "read", refuse)
    with tracker_map() as fd:
        entries = filled(fd, 100)
        assert not bpf.has_batches(fd)
        assert dict(records(bpf.map_batches(fd, bpf.map_info(fd)), 44, 64)) == entries


def test_this_kernel_has_batches_also_for_a_full_map() -> None:
    with tracker_map(64) as fd:
        assert bpf.has_batches(fd)
        filled(fd, 64)
        assert bpf.has_batches(fd)


def test_other_errors_are_handed_on() -> None:
    with tracker_map() as fd:
        info = bpf.map_info(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(bpf.map_batches(fd, info))


def test_100000_entries_come_once_each_while_others_come_and_go() -> None:
    """Entries that stay are given once and only once, whatever happens beside them."""
    with tracker_map(131072) as fd:
        entries = filled(fd, 100_000)
        stop = threading.Event()

        def churn() -> None:
            number = 1_000_000
            while not stop.is_set():
                number += 1
                key = struct.pack("=I40x", number)
                bpf.map_update(fd, key, bytes(64))
                bpf.map_delete(fd, key)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            found = records(bpf.map_batches(fd, bpf.map_info(fd)), 44, 64)
        finally:
            stop.set()
            thread.join()
    staying = Counter(key for key, _value in found if key in entries)
    assert set(staying.values()) == {1}
    assert len(staying) == 100_000


# --- single entries, ids, pins -------------------------------------------------------------------


def test_a_missing_key_is_none_and_its_deletion_says_so() -> None:
    with tracker_map() as fd:
        assert bpf.map_lookup(fd, bytes(44), 64) is None
        assert bpf.map_delete(fd, bytes(44)) is False
        bpf.map_update(fd, bytes(44), b"x" * 64)
        assert bpf.map_delete(fd, bytes(44)) is True


def test_a_new_entry_does_not_replace_one_if_told_so() -> None:
    with tracker_map() as fd:
        bpf.map_update(fd, bytes(44), b"x" * 64, bpf.NOEXIST)
        with pytest.raises(FileExistsError):
            bpf.map_update(fd, bytes(44), b"y" * 64, bpf.NOEXIST)
        with pytest.raises(FileNotFoundError):
            bpf.map_update(fd, b"z" * 44, b"y" * 64, bpf.EXIST)
        assert bpf.map_lookup(fd, bytes(44), 64) == b"x" * 64


def test_a_full_map_says_so() -> None:
    with tracker_map(8) as fd:
        filled(fd, 8)
        with pytest.raises(OSError, match="Argument list too long") as caught:
            bpf.map_update(fd, b"z" * 44, bytes(64))
        assert caught.value.errno == bpf.E2BIG


def test_a_map_is_among_all_ids_and_opens_by_its_own() -> None:
    with tracker_map() as fd:
        number = bpf.map_info(fd).id
        assert number in bpf.ids(bpf.MAP_GET_NEXT_ID)
        with bpf.closing(bpf.fd_by_id(bpf.MAP_GET_FD_BY_ID, number)) as again:
            assert bpf.map_info(again).id == number
    with pytest.raises(FileNotFoundError):
        os.close(bpf.fd_by_id(bpf.MAP_GET_FD_BY_ID, 2**31))


def test_a_pin_outlives_its_descriptor_and_can_be_opened_for_reading_only(tmp_path: Path) -> None:
    with bpffs_at(tmp_path / "bpf") as mount:
        pin = str(mount / "a_map")
        with tracker_map() as fd:
            bpf.map_update(fd, bytes(44), b"x" * 64)
            bpf.obj_pin(fd, pin)
        with bpf.closing(bpf.obj_get(pin, bpf.RDONLY)) as fd:
            assert bpf.map_lookup(fd, bytes(44), 64) == b"x" * 64
            with pytest.raises(PermissionError):
                bpf.map_update(fd, bytes(44), b"y" * 64)


def test_a_program_is_described_as_bpftool_does() -> None:
    try:
        program = bpf.prog_load(bpf.PROG_TYPE_KPROBE, bpf.RETURN_ZERO)
    except OSError as exc:
        pytest.skip(f"this machine loads no kprobe programs: {exc.strerror}")
    with bpf.closing(program) as fd:
        info = bpf.prog_info(fd)
        shown = bpftool("prog", "show", "id", str(info.id))
    assert (shown["type"], info.type) == ("kprobe", bpf.PROG_TYPE_KPROBE)
    assert info.tag == shown["tag"]
    assert info.map_ids == ()


def test_a_program_that_is_none_is_refused() -> None:
    with pytest.raises(OSError, match=r"Invalid argument|Permission denied"):
        os.close(bpf.prog_load(bpf.PROG_TYPE_KPROBE, bpf.EXIT))  # r0 is not set
