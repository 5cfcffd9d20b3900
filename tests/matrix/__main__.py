# SPDX-License-Identifier: GPL-3.0-or-later
"""`make matrix`: runs the rows one after the other, and writes build/matrix/matrix.{json,md}.

A row that is green for the same object, release and definition is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.catalogue import find_host
from lab.image import ensure_image
from lab.paths import CHECKOUT
from tests.matrix import old_libbpf
from tests.matrix.cells import Result, table
from tests.matrix.rows import ARCHIVE, OLD_LIBBPF, ROWS, Row
from tests.matrix.run_row import run_row
from tools import build_btf_archive

OUT = CHECKOUT / "build" / "matrix"
FILES = CHECKOUT / "roles" / "conntracker" / "files"


def inputs_of(row: Row, files: Path = FILES) -> str:
    """A digest of what is tested, and as what."""
    made = [path for path in sorted(files.iterdir()) if path.suffix in (".o", ".gz")]
    whole = hashlib.sha256(repr(row).encode())
    for path in made:
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()[:16]


def make_files(row: Row) -> None:
    """What the row needs that is not there yet: an archive of its kernel's types, a library."""
    if OLD_LIBBPF in row.variant.files.values():
        old_libbpf.fetch(OLD_LIBBPF)
    if str(ARCHIVE) in row.variables.values():
        disk = ensure_image(find_host(row.host).image, print).disk
        built = FILES / "conntrack-x86_64.bpf.o"
        build_btf_archive.main([str(disk), "--object", str(built), "--out", str(ARCHIVE)])


def read_results(folder: Path) -> dict[str, Result]:
    """What earlier runs have left, by row."""
    found = {}
    for path in sorted(folder.glob("row-*.json")):
        result = Result.from_json(path.read_text())
        found[result.name] = result
    return found


def write_report(results: dict[str, Result], folder: Path) -> None:
    """Both forms of it."""
    known = {name: json.loads(results[name].to_json()) for name in ROWS if name in results}
    (folder / "matrix.json").write_text(json.dumps(known, indent=1) + "\n")
    (folder / "matrix.md").write_text(table(ROWS, results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a row that was asked for is not green."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.matrix", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=ROWS, help=", ".join(ROWS))
    parser.add_argument(
        "--ci", action="store_true", help="only those that are tested with each change"
    )
    parser.add_argument("--cycles", type=int, default=3, help="of load and unload under traffic")
    parser.add_argument("--again", action="store_true", help="also the rows that are green")
    options = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    results = read_results(OUT)
    wanted = [
        row
        for name, row in ROWS.items()
        if (not options.only or name in options.only) and (row.ci or not options.ci)
    ]
    for row in wanted:
        inputs = inputs_of(row)
        earlier = results.get(row.name)
        if earlier and earlier.green and earlier.inputs == inputs and not options.again:
            print(f"matrix: {row.name}: green already", flush=True)
            continue
        print(f"matrix: {row.name} …", flush=True)
        log = OUT / f"{row.name}.log"
        log.write_text("")
        make_files(row)
        result = run_row(row, inputs, log, options.cycles)
        results[row.name] = result
        (OUT / f"row-{row.name}.json").write_text(result.to_json())
        write_report(results, OUT)
        bad = [f"{name}: {cell.text}" for name, cell in result.cells.items() if cell.good is False]
        why = "; ".join([*bad, *([result.trouble] if result.trouble else [])])
        state = "green" if result.green else f"RED ({why}); see {log}"
        print(f"matrix: {row.name}: {state}, {result.seconds} s", flush=True)
    write_report(results, OUT)
    print(f"matrix: {OUT / 'matrix.md'}")
    return 0 if all(results[row.name].green for row in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
