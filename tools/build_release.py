# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs the agent's wheel as the release archive that a host unpacks.

What the agent needs besides is only named in it: the control node adds that for each kind of host
(plugins/plugin_utils/_release/agent_tree.py).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    INTERPRETER,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import release_archive
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)


def wheel_version(wheel: Path) -> str:
    """The version that a wheel's file name says."""
    parts = wheel.name.split("-")
    if not wheel.name.endswith(".whl") or len(parts) not in (5, 6):
        raise ArchiveError(f"{wheel.name} is not a wheel")
    return parts[1]


def release_content(wheel: Path, units: Path, requirements: Path) -> dict[str, bytes]:
    """Every file of the archive, by path below its top folder."""
    content = {f"units/{unit.name}": unit.read_bytes() for unit in units.glob("*.*")}
    if not content:
        raise ArchiveError(f"no systemd unit in {units}")
    content[release_archive.LAUNCHER] = release_archive.launcher(INTERPRETER)
    content[release_archive.REQUIREMENTS] = requirements.read_bytes()
    release_archive.add_wheel(content, wheel.name, wheel.read_bytes())
    return content


def build(wheel: Path, units: Path, requirements: Path, out: Path) -> Path:
    """Write the archive into the folder `out`."""
    top = f"btfleet-{wheel_version(wheel)}"
    target = out / f"{top}.tar.gz"
    target.write_bytes(release_archive.pack(top, release_content(wheel, units, requirements)))
    return target


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path, help="btfleet's wheel")
    parser.add_argument("--units", type=Path, required=True, help="folder of systemd units")
    parser.add_argument("--requirements", type=Path, required=True, help="list locked with hashes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    given = parser.parse_args()
    try:
        target = build(given.wheel, given.units, given.requirements, given.out)
    except (ArchiveError, OSError) as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    print(f"{target}  sha256:{hashlib.sha256(target.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
