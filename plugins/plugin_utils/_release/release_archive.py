# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Release archives: what is in them, and packing them so that the same input gives the same bytes.

An archive holds one folder, btfleet-<version>/, with lib/ (the wheels' content), bin/btfleet,
units/ (systemd) and requirements.txt (what else the agent needs, locked with hashes). A host needs
python3 and nothing else to run it, from wherever it is unpacked.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from typing import Mapping

LAUNCHER = "bin/btfleet"
REQUIREMENTS = "requirements.txt"

# -I: what lies in the current folder or in PYTHON* variables is none of a root command's business.
# -S: nor are the host's site-packages, and it starts in two thirds of the time without them.
_LAUNCHER = """\
#!{interpreter} -IS
import os, sys
release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(release, "lib"))
from btfleet.cli import main
sys.exit(main())
"""

# Tests, and what compilers, type checkers and installers want. Licences and names stay.
_DEAD_WEIGHT = re.compile(
    r"(?:.*/)?(?:tests?|test_?data)/.*"
    r"|.*\.(?:pyi|pyx|pxd|pxi|h|c|cc|typed)"
    r"|[^/]+\.dist-info/(?:RECORD|WHEEL|INSTALLER|top_level\.txt|entry_points\.txt)"
)


class ArchiveError(Exception):
    """One line that says why there is no archive."""


def launcher(interpreter: str) -> bytes:
    """The command, run by this Python."""
    if not re.fullmatch(r"/[^\s]{1,100}", interpreter):
        raise ArchiveError(f"interpreter is {interpreter!r}, needed: an absolute path, no spaces")
    return _LAUNCHER.format(interpreter=interpreter).encode()


def wheel_content(name: str, raw: bytes) -> dict[str, bytes]:
    """The files of one wheel, by path; raises ArchiveError if it installs any elsewhere."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = [member for member in archive.namelist() if not member.endswith("/")]
            if any(member.split("/", 1)[0].endswith(".data") for member in names):
                raise ArchiveError(f"{name} installs files outside of its packages (.data)")
            return {member: archive.read(member) for member in names}
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise ArchiveError(f"{name} is no wheel ({exc})") from None


def add_wheel(content: dict[str, bytes], name: str, raw: bytes) -> None:
    """Adds a wheel's files to an archive's content, below lib/; raises ArchiveError."""
    for path, data in wheel_content(name, raw).items():
        if content.setdefault(f"lib/{path}", data) != data:
            raise ArchiveError(f"{name} brings another {path} than a wheel before it")


def without_dead_weight(content: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same less what nobody needs on a host."""
    return {
        name: data
        for name, data in content.items()
        if not (name.startswith("lib/") and _DEAD_WEIGHT.fullmatch(name[len("lib/") :]))
    }


def pack(top: str, content: Mapping[str, bytes]) -> bytes:
    """A gzipped tar with sorted members and nothing of the machine or the moment in it."""
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(content):
            member = tarfile.TarInfo(f"{top}/{name}")  # root's, 1970
            member.size = len(content[name])
            member.mode = 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(content[name]))
    packed = io.BytesIO()
    # mtime 0 and no file name: both would stand in gzip's header
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as zipped:
        zipped.write(tarred.getvalue())
    return packed.getvalue()


def unpack(raw: bytes) -> tuple[str, dict[str, bytes]]:
    """Name of the top folder, and the content; raises ArchiveError for a damaged archive."""
    content = {}
    tops = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            for member in archive:
                top, _slash, name = member.name.partition("/")
                stream = archive.extractfile(member)
                if stream is None or not name:
                    raise ArchiveError(f"the release archive holds {member.name!r}, no plain file")
                tops.add(top)
                content[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as exc:
        raise ArchiveError(f"the release archive is damaged ({exc}): build it again") from None
    if len(tops) != 1:
        raise ArchiveError("the release archive does not hold one folder: build it again")
    return tops.pop(), content
