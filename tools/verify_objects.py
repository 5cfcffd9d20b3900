# SPDX-License-Identifier: GPL-3.0-or-later
"""Has this kernel's verifier look at compiled objects: python -m tools.verify_objects OBJECTS...

Only programs for kprobes and iterators, which need no function of this kernel; the tracing programs
are the same C behind other entry points. Exit code 1 with a line for each program that is refused.
"""

from __future__ import annotations

import sys
from pathlib import Path

from btfleet._kernel.backends.programs import ITERATOR_PROGRAMS, PROGRAMS
from btfleet._kernel.bpf.libbpf import BpfObject, Libbpf
from btfleet._kernel.errors import TrackerError, VerifierError

TRIED = [*(name for name in PROGRAMS if "probe_" in name), *ITERATOR_PROGRAMS]


def refusals(path: str) -> list[str]:
    """Return what the verifier says of each program that it refuses; LoaderError for all else."""
    found = []
    lib, content = Libbpf(), Path(path).read_bytes()
    for name in TRIED:
        with BpfObject(lib, content, None) as obj:
            obj.select([name], PROGRAMS)
            try:
                obj.load()
            except VerifierError as error:
                found.append(f"{path}: {error}")
    return found


def main(paths: list[str]) -> int:
    """Return the exit code."""
    refused = []
    for path in paths:
        try:
            refused += refusals(path)
        except TrackerError as error:
            print(f"verify_objects: NOT RUN: this kernel or user loads no such programs: {error}")
            return 0
    for line in refused:
        print(f"verify_objects: {line}", file=sys.stderr)
    if not refused:
        print(f"verify_objects: the verifier takes {len(TRIED)} programs of each object")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
