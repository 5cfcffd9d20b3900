# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bpf(2) itself: maps, pins, ids and probes, without any library.

Reading a tracker needs no libbpf, and so no version of it. Struct layouts are those of
`union bpf_attr` and `struct bpf_*_info` in linux/bpf.h; all integers in host byte order. Every
function raises OSError with the kernel's errno. File descriptors are the caller's to close.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import contextmanager
from typing import Iterable, Iterator, NamedTuple

from .calls import (
    BPFFS_MAGIC,
    RDONLY,
    Pointers,
    call,
    closing,
    map_lookup,
    obj_get,
    obj_pin,
)

# Those of `calls` are given on
__all__ = [
    "BPFFS_MAGIC",
    "RDONLY",
    "Pointers",
    "call",
    "closing",
    "map_lookup",
    "obj_get",
    "obj_pin",
]


# enum bpf_cmd
MAP_CREATE = 0
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
MAP_GET_NEXT_KEY = 4
PROG_LOAD = 5
OBJ_PIN = 6
OBJ_GET = 7
PROG_GET_NEXT_ID = 11
MAP_GET_NEXT_ID = 12
PROG_GET_FD_BY_ID = 13
MAP_GET_FD_BY_ID = 14
OBJ_GET_INFO_BY_FD = 15
RAW_TRACEPOINT_OPEN = 17
BTF_GET_FD_BY_ID = 19
TASK_FD_QUERY = 20
BTF_GET_NEXT_ID = 23
MAP_LOOKUP_BATCH = 24
LINK_CREATE = 28
LINK_GET_FD_BY_ID = 30
LINK_GET_NEXT_ID = 31
ENABLE_STATS = 32
ITER_CREATE = 33

# enum bpf_map_type
HASH = 1
ARRAY = 2
PERCPU_ARRAY = 6
LRU_HASH = 9

# enum bpf_prog_type, enum bpf_attach_type
PROG_TYPE_KPROBE = 2
PROG_TYPE_TRACING = 26
TRACE_FENTRY = 24
TRACE_ITER = 28
PERF_EVENT = 41

# flags of an update, and of a map's or a pin's opening
ANY = 0
NOEXIST = 1
EXIST = 2

ENOENT, E2BIG, EINVAL, ENOSPC = 2, 7, 22, 28


def raise_memlock() -> None:
    """Before 5.11 maps and programs count against RLIMIT_MEMLOCK, those that others of this user
    have, too; later kernels do not look. Where it cannot be raised, the kernel's refusal says so.
    """
    try:
        resource.setrlimit(
            resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
    except (OSError, ValueError):
        return


# --- objects: pins, ids, information ----------------------------------------------------------


def fd_by_id(command: int, object_id: int) -> int:
    """Opens a map, program, link or BTF by id (`command` is one of the *_GET_FD_BY_ID)."""
    return call(command, struct.pack("=III", object_id, 0, 0))


def ids(command: int) -> Iterator[int]:
    """All ids of a kind (`command` is one of the *_GET_NEXT_ID)."""
    current = 0
    while True:
        attributes = ctypes.create_string_buffer(struct.pack("=III", current, 0, 0), 12)
        try:
            call(command, attributes)
        except OSError as exc:
            if exc.errno == ENOENT:
                return
            raise
        current = struct.unpack_from("=I", attributes, 4)[0]
        yield current


def _info(fd: int, size: int, preset: bytes = b"") -> bytes:
    pointers = Pointers()
    buffer = ctypes.create_string_buffer(preset, size)
    call(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, pointers.to(buffer)))
    return buffer.raw


class MapInfo(NamedTuple):
    """struct bpf_map_info."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    """What the kernel knows of a map."""
    raw = _info(fd, 40)
    kind, map_id, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", raw)
    return MapInfo(kind, map_id, key_size, value_size, max_entries, flags, _name(raw[24:40]))


class ProgInfo(NamedTuple):
    """struct bpf_prog_info: `tag` in hex; run time and count need kernel.bpf_stats_enabled.

    `recursion_misses` has how often the kernel passed over the program because its CPU was busy
    with another one: counted from 5.12 on for tracing programs, from 6.7 on for kprobes.
    """

    type: int
    id: int
    tag: str
    name: str
    map_ids: tuple[int, ...]
    run_time_ns: int
    run_cnt: int
    recursion_misses: int


def prog_info(fd: int) -> ProgInfo:
    """What the kernel knows of a program."""
    map_ids = ctypes.create_string_buffer(4 * 64)
    preset = bytearray(64)
    struct.pack_into("=IQ", preset, 52, 64, ctypes.addressof(map_ids))
    raw = _info(fd, 216, bytes(preset))
    prog_type, prog_id = struct.unpack_from("=II", raw, 0)
    count = min(struct.unpack_from("=I", raw, 52)[0], 64)
    run_time, run_cnt, misses = struct.unpack_from("=QQQ", raw, 192)
    return ProgInfo(
        type=prog_type,
        id=prog_id,
        tag=raw[8:16].hex(),
        name=_name(raw[64:80]),
        map_ids=struct.unpack_from(f"={count}I", map_ids),
        run_time_ns=run_time,
        run_cnt=run_cnt,
        recursion_misses=misses,
    )


@contextmanager
def run_statistics() -> Iterator[bool]:
    """Have the kernel count the runs of programs (5.8); False where it does not."""
    try:
        fd = call(ENABLE_STATS, struct.pack("=I", 0))
    except OSError:
        yield False
        return
    with closing(fd):
        yield True


class LinkInfo(NamedTuple):
    """struct bpf_link_info, the part that all types share.

    `missed` has how often a kprobe was hit inside of another one and passed over for it: 0 for
    other links, and for kernels before 6.7, which do not tell.
    """

    type: int
    id: int
    prog_id: int
    missed: int


# enum bpf_link_type; enum bpf_perf_event_type: a kprobe, and one at a function's return
_LINK_KPROBE_MULTI, _LINK_PERF_EVENT = 8, 7
_EVENT_KPROBES = (3, 4)


def link_info(fd: int) -> LinkInfo:
    """What the kernel knows of a link (5.8)."""
    return parse_link_info(_info(fd, 64))


def parse_link_info(raw: bytes) -> LinkInfo:
    """The same from the struct; what the kernel did not know to write is zero."""
    kind, link_id, prog_id, _pad, event = struct.unpack_from("=5I", raw)
    missed = 0
    if kind == _LINK_KPROBE_MULTI:
        missed = struct.unpack_from("=Q", raw, 32)[0]
    elif kind == _LINK_PERF_EVENT and event in _EVENT_KPROBES:
        missed = struct.unpack_from("=Q", raw, 48)[0]
    return LinkInfo(kind, link_id, prog_id, missed)


def btf_name(fd: int) -> str:
    """The name of a BTF object: "vmlinux" or a module's (struct bpf_btf_info, 5.11)."""
    name = ctypes.create_string_buffer(64)
    preset = struct.pack("=QIIQI", 0, 0, 0, ctypes.addressof(name), 64)
    _info(fd, 32, preset)
    return _name(name.raw)


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


# --- maps -------------------------------------------------------------------------------------


def map_create(
    map_type: int, key_size: int, value_size: int, max_entries: int, name: str = ""
) -> int:
    """Makes a map."""
    return call(
        MAP_CREATE,
        struct.pack(
            "=IIIIIII16s",
            map_type,
            key_size,
            value_size,
            max_entries,
            0,
            0,
            0,
            name.encode("ascii")[:15],
        ),
    )


def map_update(fd: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Writes a value."""
    pointers = Pointers()
    call(
        MAP_UPDATE_ELEM,
        struct.pack("=IxxxxQQQ", fd, pointers.to(key), pointers.to(value), flags),
    )


def map_delete(fd: int, key: bytes) -> bool:
    """Removes a key; says whether it was there."""
    pointers = Pointers()
    try:
        call(MAP_DELETE_ELEM, struct.pack("=IxxxxQQQ", fd, pointers.to(key), 0, 0))
    except OSError as exc:
        if exc.errno == ENOENT:
            return False
        raise
    return True


class _BatchReader:
    """The buffers of BPF_MAP_LOOKUP_BATCH, made once for a whole map."""

    def __init__(self, fd: int, info: MapInfo, count: int) -> None:
        self.count = count
        self._keys = ctypes.create_string_buffer(info.key_size * count)
        self._values = ctypes.create_string_buffer(info.value_size * count)
        # A hash map's position is a 32-bit bucket number, whatever the key's size
        self._position = ctypes.create_string_buffer(max(info.key_size, 4))
        self._fd = fd
        self._info = info

    def read(self, first: bool) -> tuple[bytes, bytes, bool]:
        """The next (keys, values, whether these were the last)."""
        position = ctypes.addressof(self._position)
        attributes = ctypes.create_string_buffer(
            struct.pack(
                "=QQQQIIQQ",
                0 if first else position,
                position,
                ctypes.addressof(self._keys),
                ctypes.addressof(self._values),
                self.count,
                self._fd,
                0,
                0,
            ),
            56,
        )
        last = False
        try:
            call(MAP_LOOKUP_BATCH, attributes)
        except OSError as exc:
            if exc.errno != ENOENT:
                raise
            last = True
        got = struct.unpack_from("=I", attributes, 32)[0]
        return (
            ctypes.string_at(self._keys, got * self._info.key_size),
            ctypes.string_at(self._values, got * self._info.value_size),
            last,
        )

    def grown(self) -> _BatchReader:
        """The same position with twice the room."""
        larger = _BatchReader(self._fd, self._info, self.count * 2)
        ctypes.memmove(larger._position, self._position, len(self._position))
        return larger


def has_batches(fd: int) -> bool:
    """Whether the kernel reads this hash map in batches (5.6)."""
    try:
        _BatchReader(fd, map_info(fd), 1).read(first=True)
    except OSError as exc:
        if exc.errno == EINVAL:
            return False
        if exc.errno != ENOSPC:
            raise
    return True


def map_batches(fd: int, info: MapInfo, count: int = 8192) -> Iterator[tuple[bytes, bytes]]:
    """Reads a hash map in batches: (keys, values), each a run of fixed-size records.

    A bucket is read under its lock, so an entry that stays is given once and only once. Kernels
    without batches are read key by key.
    """
    reader = _BatchReader(fd, info, min(count, max(info.max_entries, 1)))
    first = True
    while True:
        try:
            keys, values, last = reader.read(first)
        except OSError as exc:
            if exc.errno == ENOSPC:  # one bucket holds more than a batch
                reader = reader.grown()
                continue
            if exc.errno == EINVAL and first:
                yield from _one_by_one(fd, info)
                return
            raise
        first = False
        if keys:
            yield keys, values
        if last:
            return


def _one_by_one(fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    key: bytes | None = None
    while True:
        pointers = Pointers()
        following = ctypes.create_string_buffer(info.key_size)
        try:
            call(
                MAP_GET_NEXT_KEY,
                struct.pack("=IxxxxQQQ", fd, pointers.to(key), pointers.to(following), 0),
            )
        except OSError as exc:
            if exc.errno == ENOENT:
                return
            raise
        key = following.raw
        value = map_lookup(fd, key, info.value_size)
        if value is not None:
            yield key, value


def map_entries(fd: int) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a hash map, read in batches."""
    info = map_info(fd)
    for keys, values in map_batches(fd, info):
        yield from zip(_cut(keys, info.key_size), _cut(values, info.value_size))


def _cut(run: bytes, size: int) -> Iterator[bytes]:
    return (run[start : start + size] for start in range(0, len(run), size))


def map_fill(fd: int, info: MapInfo) -> int:
    """How many entries a hash map holds."""
    return sum(len(keys) // info.key_size for keys, _values in map_batches(fd, info))


def program_of_event(pid: int, fd: int) -> int | None:
    """The id of the program on a perf event that a process has open; None if there is none."""
    buffer = ctypes.create_string_buffer(struct.pack("=IIIIQIIQQ", pid, fd, 0, 0, 0, 0, 0, 0, 0))
    try:
        call(TASK_FD_QUERY, buffer)
    except OSError:
        return None
    return int(struct.unpack_from("=I", buffer.raw, 24)[0])


# --- iterators ----------------------------------------------------------------------------------


def attach_tracing(program_fd: int) -> int:
    """Attaches a tracing program to the function that it was loaded for (5.5); the link."""
    return call(RAW_TRACEPOINT_OPEN, struct.pack("=QII", 0, program_fd, 0))


def iterator_link(program_fd: int, map_fd: int) -> int:
    """Binds an iterator program to a map (5.9); a pin of the link is a file that can be read."""
    pointers = Pointers()
    target = struct.pack("=I", map_fd)
    return call(
        LINK_CREATE,
        struct.pack("=IIIIQII", program_fd, 0, TRACE_ITER, 0, pointers.to(target), len(target), 0),
    )


def run_iterator(link_fd: int) -> Iterator[bytes]:
    """Walks the link's map once; what the program writes, in pieces."""
    with closing(call(ITER_CREATE, struct.pack("=II", link_fd, 0))) as fd:
        yield from read_iterator(fd)


def read_iterator(fd: int) -> Iterator[bytes]:
    """The same from a pinned iterator that was opened as a file."""
    while True:
        try:
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:  # a million entries in a row for which nothing was written
            continue
        if not piece:
            return
        yield piece


def split_entries(
    pieces: Iterable[bytes], key_size: int, value_size: int
) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs that an iterator program wrote without a gap."""
    size = key_size + value_size
    rest = b""
    for piece in pieces:
        run = rest + piece
        whole = len(run) - len(run) % size
        for start in range(0, whole, size):
            middle = start + key_size
            yield run[start:middle], run[middle : start + size]
        rest = run[whole:]


# --- programs, for probes ---------------------------------------------------------------------

EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)
RETURN_ZERO = struct.pack("=BBhi", 0xB7, 0, 0, 0) + EXIT


def prog_load(
    prog_type: int,
    instructions: bytes,
    expected_attach_type: int = 0,
    attach_btf_id: int = 0,
    attach_btf_obj_fd: int = 0,
) -> int:
    """Loads a small program; nothing of it stays once the descriptor is closed."""
    pointers = Pointers()
    attributes = bytearray(128)
    struct.pack_into(
        "=IIQQ",
        attributes,
        0,
        prog_type,
        len(instructions) // 8,
        pointers.to(instructions),
        pointers.to(b"GPL\0"),
    )
    struct.pack_into("=I", attributes, 68, expected_attach_type)
    struct.pack_into("=II", attributes, 108, attach_btf_id, attach_btf_obj_fd)
    return call(PROG_LOAD, bytes(attributes))
