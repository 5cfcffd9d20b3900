# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishes, and is killed at steps on the disk: python -m ... FOLDER KIND KILLS

The kills are spread evenly over all steps. A child process is forked for each, so that Python
starts once. After a kill the place is read as a client reads it, and the next run has to do what
the killed one did not. Prints how many were killed, and how many of those left the old and the
new generation.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher import libraries
from ansible_collections.btfleet.conntrack.plugins.module_utils._publisher.plan import REPOSITORIES

from tests.unit.publisher.places import Place, config, path_of

# What a step on the disk is, as Python's audit events name it
STEPS = (
    "open",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "ctypes.",
)


def publish(place: Place) -> None:
    place.publish(config(content={"max_entries": 4096}), config("new"), exclusive=True)


def rotate(place: Place) -> None:
    place.converge(rotate=("director.root", "config.targets"), rotation_id="1")


def create(place: Place) -> None:
    place.converge()


ACTS: dict[str, Callable[[Place], Any]] = {"create": create, "publish": publish, "rotate": rotate}
OLD = {path_of(), path_of("old")}
NEW = {"create": set(), "publish": {path_of(), path_of("new")}, "rotate": OLD}


def steps_until(act: Callable[[Place], Any], place: Place, last: int | None) -> int:
    """Acts in a child that dies before its step `last`, if there is one; how many steps it came."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in STEPS and any(str(place.folder) in str(one) for one in arguments):
                if next(count) == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                os.write(writing, b".")

        sys.addaudithook(hook)
        act(place)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        steps = len(stream.read())
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (last is not None), status
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return steps


def read(place: Place) -> set[str]:
    """Reads both repositories as a client does, and every file; the paths of all configs."""
    found = []
    for name in REPOSITORIES:
        with tempfile.TemporaryDirectory() as cache:
            updater = libraries.Updater(
                cache,
                (place.current / name).as_uri(),
                fetcher=libraries.FolderFetcher(),
                bootstrap=place.first_root(name),
            )
            updater.refresh()
        repository = place.publisher().generations.read()
        assert repository
        targets = repository.repositories[name].targets.targets
        for target in targets.values():
            assert place.publisher().generations.read_target(target) is not None, target.path
        found.append(set(targets))
    assert found[0] == found[1]
    return found[0]


def check_kill(place: Place, kind: str, step: int) -> bool:
    """Kills at a step, reads, and goes on; whether the new generation was left."""
    numbers = place.publisher().generations
    before = numbers.current_number()
    assert steps_until(ACTS[kind], place, step) == step
    after = numbers.current_number()
    assert after in (before, (before or 0) + 1), (before, after)
    if after is not None:
        assert read(place) == (OLD if after == before else NEW[kind])
    ACTS[kind](place)
    assert read(place) == NEW[kind]
    publish(place)
    place.publish(config("last"))
    assert read(place) == {*NEW["publish"], path_of("last")}
    assert list(place.root.rglob(".new-*")) == []
    generation = numbers.read()
    assert generation
    for name, repository in generation.repositories.items():
        for role, one in repository.root.roles.items():
            files = {path.stem for path in place.key_files(f"{name}.{role}")}
            assert files == set(one.keyids), "no key file too many, none too few"
    return after != before


def main(folder: Path, kind: str, kills: int) -> None:
    made = Place(folder / "made")
    if kind == "create":
        made.folder.mkdir(parents=True)
    else:
        made.converge()
        made.publish(config(), config("old"))

    def copy(name: str) -> Place:
        shutil.copytree(made.folder, folder / name, symlinks=True)
        return Place(folder / name)

    whole = steps_until(ACTS[kind], copy("whole"), None)
    chosen = sorted({number * (whole - 1) // (kills - 1) for number in range(kills)})
    new = sum(check_kill(copy(f"killed-{step}"), kind, step) for step in chosen)
    print(len(chosen), len(chosen) - new, new)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
