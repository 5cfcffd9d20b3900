# SPDX-License-Identifier: GPL-3.0-or-later
"""A load asks for memory before it takes any; the kernel's own figures are the oracle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from btfleet._kernel.bpf import bpf
from btfleet._kernel.conntrack.layout import CLOSED, COUNTERS_MAP, LIVE, SHAPES, possible_cpus
from btfleet._kernel.errors import LoaderError
from btfleet._kernel.loader import memory
from btfleet._kernel.loader.memory import Room
from btfleet._kernel.spec import Spec

from tests.unit.kernel_access import needs_bpf

SPEC = Spec("a" * 64)
HUGE = Spec("a" * 64, max_entries=16777216, closed_entries=16777216)


@needs_bpf
@pytest.mark.parametrize("name", [LIVE, CLOSED, COUNTERS_MAP])
@pytest.mark.parametrize("entries", [14, 1024, 1025, 65536, 100000])
def test_a_map_takes_what_the_kernel_says_and_hardly_less(name: str, entries: int) -> None:
    shape = SHAPES[name]
    fd = bpf.map_create(shape.type, shape.key_size, shape.value_size, entries)
    with bpf.closing(fd):
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    match = re.search(r"memlock:\s+(\d+)", text)
    assert match is not None
    cpus = possible_cpus()
    more = memory.map_bytes(name, entries, cpus) - int(match.group(1))
    assert 0 <= more <= 2048 + 256 * cpus


def test_the_largest_map_takes_what_was_measured() -> None:
    assert round(memory.map_bytes(LIVE, 16777216, 2) / 1e9, 2) == 2.95


def test_a_change_of_size_needs_the_new_maps_beside_the_old_ones() -> None:
    both = memory.map_bytes(LIVE, 131072, 2) + memory.map_bytes(CLOSED, 65536, 2)
    sizes = memory.sizes(SPEC)
    others = {name: memory.map_bytes(name, sizes[name], 2) for name in {*sizes} - {LIVE, CLOSED}}
    assert memory.needed(SPEC, others, 2) == both
    assert memory.needed(SPEC, (), 2) == both + sum(others.values())
    assert memory.needed(SPEC, sizes, 2) == 0


def test_what_fits_is_not_refused_and_a_tenth_is_left() -> None:
    rooms = [Room(100, "MemAvailable"), Room(200, "cgroup /a")]
    assert memory.refusal(90, rooms) is None
    assert memory.refusal(91, rooms) is not None
    assert memory.refusal(10**12, []) is None


def test_what_does_not_fit_is_one_line_with_the_least_room_there_is() -> None:
    rooms = [Room(4 * 10**9, "MemAvailable"), Room(5 * 10**8, "cgroup /sys/fs/cgroup/a")]
    assert memory.refusal(2950 * 10**6, rooms) == (
        "the maps need 2950 MB, there are 500 MB (cgroup /sys/fs/cgroup/a), of which a tenth is "
        "left to others: lower max_entries or closed_entries, or give more memory; "
        "nothing was changed"
    )


def test_the_available_memory_is_read() -> None:
    assert memory.available_of("MemTotal: 9 kB\nMemAvailable:    1234 kB\n") == 1234 * 1024
    with pytest.raises(ValueError, match="MemAvailable"):
        memory.available_of("MemTotal: 9 kB\n")


def test_a_cgroup_and_all_above_it_count() -> None:
    assert memory.folders_of("0::/system.slice/a.service\n") == [
        ("/sys/fs/cgroup/system.slice/a.service", True),
        ("/sys/fs/cgroup/system.slice", True),
        ("/sys/fs/cgroup", True),
    ]
    assert memory.folders_of("4:cpu,memory:/a\n3:pids:/b\n") == [
        ("/sys/fs/cgroup/memory/a", False),
        ("/sys/fs/cgroup/memory", False),
    ]


@pytest.mark.parametrize(
    ("release", "counted"),
    [
        ("5.10.0-9-amd64", False),
        ("5.11.0", True),
        ("6.1.0", True),
        ("4.18.0-x", False),
        ("?", False),
    ],
)
def test_maps_count_against_cgroups_from_5_11_on(release: str, counted: bool) -> None:
    assert memory.is_counted(release) == counted


@pytest.fixture
def limited() -> Iterator[Path]:
    """A memory cgroup of 64 MB beside the test's own."""
    for folder, is_v2 in memory.folders_of(Path("/proc/self/cgroup").read_text()):
        made = Path(folder) / f"btfleet-unit-{os.getpid()}"
        limit = made / ("memory.max" if is_v2 else "memory.limit_in_bytes")
        try:
            made.mkdir()
            limit.write_text(str(64 << 20))
        except OSError:
            if made.is_dir():
                made.rmdir()
            continue
        yield made
        made.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


_IN_CGROUP = """
import sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
from btfleet._kernel.loader import memory
from btfleet._kernel.spec import Spec
memory.require(Spec("a" * 64), ())
try:
    memory.require(Spec("a" * 64, max_entries=1048576), ())
except Exception as exc:
    print(exc)
"""


def test_the_limit_of_the_callers_cgroup_counts(limited: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IN_CGROUP, str(limited)], capture_output=True, text=True, check=True
    )
    assert f"(cgroup {limited})" in done.stdout
    assert "the maps need 197 MB" in done.stdout


def test_what_nobody_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_of", lambda _text: 5 * 10**9)
    with pytest.raises(LoaderError, match="the maps need 5907 MB, there are"):
        memory.require(HUGE, ())
