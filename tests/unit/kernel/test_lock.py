# SPDX-License-Identifier: GPL-3.0-or-later
"""One loader at a time, whatever becomes of the lock's file, and nobody waits without an end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from btfleet._kernel.errors import LoaderError
from btfleet._kernel.loader import lock

_HOLD = """
import sys, time
from btfleet._kernel.loader import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "loader.lock")


@contextmanager
def other_process(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another loader, which holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_who_waits_too_long_is_told_for_whom(path: str) -> None:
    with other_process(path) as other:
        with pytest.raises(LoaderError) as caught, lock.held(path, patience=0.2):
            pass
        assert str(caught.value).startswith(f"process {other.pid} ({sys.executable} -c ")
        assert f" has held {path} for 0 s: wait until that load has ended, " in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_killed_process_holds_nothing(path: str) -> None:
    with other_process(path) as other:
        assert lock.is_held(path)
        other.kill()
        other.wait()
        assert not lock.is_held(path)
        with lock.held(path, patience=0.0):
            assert lock.is_held(path)


def test_nobody_holds_a_lock_that_was_never_made(path: str) -> None:
    assert not lock.is_held(path)
    assert not os.path.exists(path)


def test_who_waits_while_the_file_is_removed_is_alone_too(path: str) -> None:
    """A lock on a file that others do not find any more is none."""
    inside: list[str] = []
    most = 0

    def load(name: str) -> None:
        nonlocal most
        with lock.held(path):
            inside.append(name)
            most = max(most, len(inside))
            threading.Event().wait(0.05)
            inside.remove(name)

    with lock.held(path):
        waiting = [threading.Thread(target=load, args=(str(number),)) for number in range(3)]
        for thread in waiting:
            thread.start()
        threading.Event().wait(0.2)
        lock.forget(path)
        late = threading.Thread(target=load, args=("late",))
        late.start()
    for thread in (*waiting, late):
        thread.join()
    assert most == 1


def test_the_folder_stays_where_it_has_other_files(path: str) -> None:
    with lock.held(path):
        Path(path).with_name("other").touch()
        lock.forget(path)
    assert os.listdir(os.path.dirname(path)) == ["other"]
