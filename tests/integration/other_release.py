# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes other releases out of this one, for rollouts that have something to do, or fail.

    python3 tests/integration/other_release.py ARCHIVE OBJECT FOLDER

writes into FOLDER

    previous/btfleet-VERSION.tar.gz, previous/conntrack.bpf.o
        the same under another version, and an object with another digest
    broken/btfleet-VERSION.tar.gz
        one whose agent ends before it is ready

Run on the control node.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import release_archive

PACKAGE, AGENT = "lib/btfleet/__init__.py", "lib/btfleet/agent_command.py"
BROKEN = b'raise SystemExit("this agent cannot start")\n'


def renamed(content: dict[str, bytes], version: str) -> dict[str, bytes]:
    """The files of a release with another version."""
    package, count = re.subn(
        rb'(?m)^__version__ = ".*"$', f'__version__ = "{version}"'.encode(), content[PACKAGE]
    )
    if count != 1:
        raise LookupError(f"{PACKAGE} names no version")
    return {**content, PACKAGE: package}


def write(folder: Path, version: str, content: dict[str, bytes]) -> None:
    """An archive as `make release` would make it."""
    folder.mkdir(parents=True, exist_ok=True)
    top = f"btfleet-{version}"
    (folder / f"{top}.tar.gz").write_bytes(release_archive.pack(top, renamed(content, version)))


def main() -> None:
    """Read the three paths."""
    archive, built, folder = map(Path, sys.argv[1:])
    _top, content = release_archive.unpack(archive.read_bytes())
    write(folder / "previous", "0.0.9", content)
    # What follows the last section header belongs to nothing
    (folder / "previous" / "conntrack.bpf.o").write_bytes(built.read_bytes() + bytes(8))
    write(folder / "broken", "0.1.1", {**content, AGENT: BROKEN})


if __name__ == "__main__":
    main()
