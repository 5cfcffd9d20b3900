# SPDX-License-Identifier: GPL-3.0-or-later
"""What several unit tests need of the machine: bpf(2), bpftool, and entries of flows."""

from __future__ import annotations

import json
import multiprocessing
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.bpf.libc import CLONE_NEWNS, unshare

Result = TypeVar("Result")

# conftest.py leaves them out where they cannot run, and says so
needs_root = pytest.mark.needs_root
needs_bpf = pytest.mark.needs_root("bpf")


def bpftool(*arguments: str) -> Any:
    """What bpftool answers, from its JSON."""
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if done.stdout else None


@contextmanager
def bpffs_at(folder: Path) -> Iterator[Path]:
    """A bpf file system of one's own; its pins go with it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def hash_map(key_size: int, value_size: int, entries: int, kind: int = bpf.HASH) -> Iterator[int]:
    """A map that goes with the block."""
    with bpf.closing(bpf.map_create(kind, key_size, value_size, entries)) as fd:
        yield fd


@contextmanager
def tracker_map(entries: int = 1024) -> Iterator[int]:
    """A map of the shape of conntrack_live: 44 and 64 bytes, as bpf/conntrack.h has it."""
    with hash_map(44, 64, entries) as fd:
        yield fd


End = tuple[str, int, str, int]


@dataclass(frozen=True)
class Wanted:
    """A flow, described without the code under test."""

    orig: End
    reply: End
    protocol: int = 6
    netns: int = 4026531840
    zones: tuple[int, int] = (0, 0)
    ct: int = 1
    created_ns: int = 1
    closed_ns: int = 0
    generation: int = 0
    seeded: bool = False

    @property
    def family(self) -> int:
        return 10 if ":" in self.orig[0] else 2

    def entries(self) -> list[tuple[bytes, bytes]]:
        """Both directions, (key, value), the original one first."""
        return [
            self._entry(self.orig, self.reply, self.zones[0], self.zones[1], 1),
            self._entry(self.reply, self.orig, self.zones[1], self.zones[0], 0),
        ]

    def _entry(
        self, near: End, far: End, zone: int, other_zone: int, flags: int
    ) -> tuple[bytes, bytes]:
        key = struct.pack(
            "<IHBB16s16sHH",
            self.netns,
            zone,
            self.family,
            self.protocol,
            packed(near[0]),
            packed(near[2]),
            near[1],
            near[3],
        )
        value = struct.pack(
            "<QQQ16s16sHHHBB",
            self.ct,
            self.created_ns,
            self.closed_ns,
            packed(far[0]),
            packed(far[2]),
            far[1],
            far[3],
            other_zone,
            flags | 2 * self.seeded,
            self.generation,
        )
        return key, value

    def write(self, fd: int) -> None:
        """Puts both directions into a map."""
        for key, value in self.entries():
            bpf.map_update(fd, key, value)


def packed(address: str) -> bytes:
    """An address as the object stores it, IPv4 in the first word."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address).ljust(16, b"\0")


MASQUERADED = Wanted(
    orig=("10.0.0.2", 40000, "192.0.2.1", 80), reply=("192.0.2.1", 80, "203.0.113.1", 1024)
)
MASQUERADED_V6 = Wanted(
    orig=("fd00::2", 5353, "2001:db8::1", 53),
    reply=("2001:db8::1", 53, "2001:db8::ffff", 1024),
    protocol=17,
)
PING = Wanted(
    orig=("10.0.0.2", 7, "192.0.2.1", 8 << 8), reply=("192.0.2.1", 7, "203.0.113.1", 0), protocol=1
)


@contextmanager
def namespace() -> Iterator[str]:
    """The path of a network namespace of one's own; it goes with the block."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "ready\n"
            yield f"/proc/{holder.pid}/ns/net"
        finally:
            holder.kill()


def in_own_mounts(function: Callable[[], Result]) -> Result:
    """Return what `function` returns in a child process that may mount as it likes."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def body() -> None:
        unshare(CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        writer.send(function())

    child = multiprocessing.get_context("fork").Process(target=body)
    child.start()
    writer.close()
    try:
        result: Result = reader.recv()
    except EOFError:
        pytest.fail("the child failed: its traceback is above")
    finally:
        child.join(60)
    return result


def bind(source: str, target: str) -> None:
    """Mount a file or folder at another place as well."""
    subprocess.run(["mount", "--bind", source, target], check=True)


@contextmanager
def link_in(namespace_path: str) -> Iterator[tuple[int, int]]:
    """A link as good as any, (descriptor, id of its program): of a program that lets all pass."""
    sk_lookup, attach_type = 30, 36  # linux/bpf.h
    let_pass = struct.pack("=BBhi", 0xB7, 0, 0, 1) + bpf.EXIT
    with bpf.closing(bpf.prog_load(sk_lookup, let_pass, attach_type)) as program:
        with open(namespace_path, "rb") as stream:
            attributes = struct.pack("=IIII", program, stream.fileno(), attach_type, 0)
            link = bpf.call(bpf.LINK_CREATE, attributes)
        with bpf.closing(link) as fd:
            yield fd, bpf.prog_info(program).id
