# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes one answer after the other in a process that is killed at a random moment, many times.

    python -m tests.unit.poller.killed_polls FOLDER KILLS SEED

The process says when it begins a version, and is killed a moment after that: while it verifies,
keeps, or asks. After each kill the state on the disk verifies as a whole and is that of one
published version, not older than before; what is asked of the loader is whole too, and not newer
than the state. A line each: version before, version begun, version after.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from btfleet._config import remote
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store
from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.poller.conntrack_product import ConntrackProduct
from btfleet.poller.repository import StateRepository
from btfleet.poller.states import StateBook
from btfleet.poller.verify import Trusted

from tests.unit.poller.director import HOST, NOW, Director, content

# Versions that one life may begin before it is killed
MOST_BEGUN = 3


def files(version: int) -> dict[str, bytes]:
    """What is published as this version; the versions differ in every file."""
    size = 1024 + version
    return {
        f"btfleet/1/CONNTRACK/edge/{number}": content(max_entries=size) + b" " * 3000
        for number in range(1 + version % 5)
    }


def held(folder: Path, director: Director) -> Trusted:
    """What a start of the agent would find; raises if that does not verify."""
    repository = StateRepository(str(folder))
    try:
        if repository.damage:
            raise SystemExit(f"the state is damaged: {repository.damage}")
        return verify.restore(director.first_root, repository.load(), HOST)
    finally:
        repository.close()


def work(folder: Path, store: Store, director: Director, answers: list[bytes], begun: int) -> None:
    """One life of an agent; it writes a byte to `begun` for each version."""
    repository = StateRepository(str(folder))
    trusted = verify.restore(director.first_root, repository.load(), HOST)
    book = StateBook(repository.load_states())
    product = ConntrackProduct(
        store, book, lambda: None, lambda: repository.save_states(book.all())
    )
    # No further, however late it is killed: the versions are to last for all lives
    first = trusted.targets_version + 1
    for raw in answers[first : first + MOST_BEGUN]:
        os.write(begun, b".")
        answer = pb.ClientGetConfigsResponse.FromString(raw)
        trusted = verify.update(trusted, answer, HOST, NOW)
        repository.commit(trusted, HOST.digest)
        book.set_configs(trusted.configs)
        product.update(trusted.configs)
        product.watch()
    time.sleep(3600)


def check(folder: Path, store: Store, director: Director) -> int:
    """The version that is held; raises SystemExit if anything is a mixture."""
    trusted = held(folder, director)
    version = trusted.targets_version
    found = {path: config.raw for path, config in trusted.configs.items()}
    if found != (files(version) if version > 1 else {}):
        raise SystemExit(f"version {version} holds another version's files")
    wanted = remote.read_wanted(store)
    asked = {int(str(size)) - 1024 for size in wanted.settings.values()} if wanted else set()
    if len(asked) > 1 or any(each > version for each in asked):
        raise SystemExit(f"a mixture is asked for: {wanted}, at version {version}")
    return version


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)  # noqa: S311
    store = Store(str(folder / "etc/spec.json"), wanted_path=str(folder / "wanted.json"))
    store.write_spec(Spec("a" * 64))
    remote.write_allowed(store, ["CONNTRACK.max_entries"])
    director, answers = Director(), [b""]
    answers.append(director.answer(roots=[]).SerializeToString())
    for version in range(2, MOST_BEGUN * kills + 2):
        director.publish(files(version))
        answers.append(director.answer(roots=[]).SerializeToString())
    before = 0
    for _number in range(kills):
        count = chance.randint(1, MOST_BEGUN)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            # However it ends, it is killed
            try:
                work(folder, store, director, answers, writing)
            finally:
                os._exit(1)
        os.close(writing)
        for _version in range(count):
            os.read(reading, 1)
        time.sleep(chance.choice([0, chance.uniform(0, 0.005), chance.uniform(0, 0.03)]))
        os.kill(child, signal.SIGKILL)
        _pid, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit("the agent ended by itself")
        begun = before + count + len(os.read(reading, 1 << 16))
        os.close(reading)
        after = check(folder, store, director)
        if not begun - 1 <= after <= begun:
            raise SystemExit(f"version {after} is held after {begun} was begun")
        print(before, begun, after, flush=True)
        before = after


if __name__ == "__main__":
    main()
