# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs wheels as the release archive that a host unpacks; the same input gives the same bytes.

The archive holds one folder, btfleet-<version>/, with lib/ (the wheels' content), bin/btfleet and
units/ (systemd). A host needs python3 and nothing else to run it, from wherever it is unpacked.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

# -I: what lies in the current folder or in PYTHON* variables is none of a root command's business.
# -S: nor are the host's site-packages, and it starts in two thirds of the time without them.
LAUNCHER = """\
#!/usr/bin/python3 -IS
import os, sys
release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib"))
from btfleet.cli import main
sys.exit(main())
"""


class ReleaseError(Exception):
    """One line that says why there is no archive."""


def wheel_content(wheel: Path) -> dict[str, bytes]:
    """The files of one wheel, by path in lib/."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if any(name.split("/", 1)[0].endswith(".data") for name in names):
            raise ReleaseError(f"{wheel.name} installs files outside of its packages (.data)")
        return {name: archive.read(name) for name in names}


def wheel_version(wheel: Path) -> str:
    """The version that a wheel's file name says."""
    parts = wheel.name.split("-")
    if not wheel.name.endswith(".whl") or len(parts) not in (5, 6):
        raise ReleaseError(f"{wheel.name} is not a wheel")
    return parts[1]


def release_content(wheels: list[Path], units: Path) -> dict[str, bytes]:
    """Every file of the archive, by path below its top folder."""
    content = {"bin/btfleet": LAUNCHER.encode()}
    for unit in units.glob("*.*"):
        content[f"units/{unit.name}"] = unit.read_bytes()
    if len(content) == 1:
        raise ReleaseError(f"no systemd unit in {units}")
    for wheel in wheels:
        for name, data in wheel_content(wheel).items():
            if content.setdefault(f"lib/{name}", data) != data:
                raise ReleaseError(f"{wheel.name} brings another {name} than a wheel before it")
    return content


def pack(top: str, content: dict[str, bytes]) -> bytes:
    """A gzipped tar with sorted members and nothing of the machine or the moment in it."""
    packed = io.BytesIO()
    # mtime 0 and no file name: both would stand in gzip's header
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(content):
            member = tarfile.TarInfo(f"{top}/{name}")  # root's, 1970
            member.size = len(content[name])
            member.mode = 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(content[name]))
    return packed.getvalue()


def build(wheels: list[Path], units: Path, out: Path) -> Path:
    """Write the archive into the folder `out`; the first wheel, btfleet's, names the version."""
    top = f"btfleet-{wheel_version(wheels[0])}"
    target = out / f"{top}.tar.gz"
    target.write_bytes(pack(top, release_content(wheels, units)))
    return target


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheels", nargs="+", type=Path, help="btfleet's wheel, then what it needs")
    parser.add_argument("--units", type=Path, required=True, help="folder of systemd units")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    try:
        target = build(arguments.wheels, arguments.units, arguments.out)
    except (ReleaseError, OSError, zipfile.BadZipFile) as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    print(f"{target}  sha256:{hashlib.sha256(target.read_bytes()).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
