# SPDX-License-Identifier: GPL-3.0-or-later
"""Coverage-guided fuzzing of one target: python -m tests.fuzz NAME [SECONDS]

Without arguments: all names, which `make fuzz` runs. Inputs that found something new stay in
build/fuzz/NAME/corpus, and the next run begins with them. What crashes, hangs or grows is kept
beside it; to see it again: python -m tests.fuzz NAME FILE.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # only `make fuzz` installs it

from tests.fuzz.json_edits import edited

FOLDER = Path(__file__).resolve().parents[2] / "build" / "fuzz"
MAX_BYTES = 64 * 1024
# Of one input, by the clock of a machine that may be busy, and of the process
SECONDS, MEGABYTES = 60, 512


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time JSON is changed as JSON, else bytes as bytes."""
    if seed % 2:
        changed = edited(data, seed)
        if len(changed) <= max_size:
            return changed
    mutated: bytes = atheris.Mutate(data, max_size)
    return mutated


def main(name: str, what: str = "30") -> None:
    """Does not return: libFuzzer ends the process, with a code other than 0 for a finding."""
    with atheris.instrument_imports(
        include=["btfleet", "tuf", "securesystemslib"], enable_loader_override=False
    ):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 instrumented while it is imported

    target = TARGETS[name]()
    folder = FOLDER / name
    corpus, seeds = folder / "corpus", folder / "seeds"
    for each in (corpus, seeds):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(seed)
    inputs = [f"-max_total_time={what}", str(corpus), str(seeds)] if what.isdigit() else [what]
    flags = [
        f"-artifact_prefix={folder}/",
        f"-max_len={MAX_BYTES}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-timeout={SECONDS}",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([name, *flags, *inputs], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:]:
        main(*sys.argv[1:])
    else:
        from tests.fuzz.targets import TARGETS

        print(*TARGETS)
