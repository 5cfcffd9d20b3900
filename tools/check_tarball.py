# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a collection tarball holds the build products and nothing of the workshop."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

FILES = "roles/conntracker/files"
DESCRIPTION = "plugins/plugin_utils/_fleet/config_v1.binpb"
OBJECTS = [f"{FILES}/conntrack-{arch}.bpf.o" for arch in ("x86_64", "aarch64")]

# All that users get. Whoever adds a folder to the checkout decides here and in galaxy.yml.
SHIPPED = frozenset(
    [
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "bpf",
        "changelogs",
        "docs",
        "meta",
        "monitoring",
        "playbooks",
        "plugins",
        "roles",
    ]
)


def problems(names: list[str], version: str) -> Iterator[str]:
    """What is missing from a tarball with these files, and what should not be there."""
    built = [*OBJECTS, f"{FILES}/btfleet-{version}.tar.gz", DESCRIPTION]
    for needed in [*built, "README.md", "meta/runtime.yml"]:
        if needed not in names:
            yield f"{needed} is missing"
    for name in names:
        parts = name.split("/")
        if parts[0] not in SHIPPED:
            yield f"{name} is not meant for users"
        elif any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield f"{name} is hidden or a cache"
        elif name.endswith(".o") and name not in OBJECTS:
            yield f"{name} is a stray object"


def main() -> int:
    """Check the tarball named on the command line."""
    tarball = Path(sys.argv[1])
    version = tarball.name[: -len(".tar.gz")].rsplit("-", 1)[1]
    with tarfile.open(tarball) as archive:
        names = [member.name for member in archive.getmembers() if not member.isdir()]
    found = list(problems(names, version))
    for line in found:
        print(f"check_tarball: {line}", file=sys.stderr)
    print(f"{tarball}: {len(names)} files, {tarball.stat().st_size / 1024:.0f} kB")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
