# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs on this machine what the lab needs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.apt_sources import machine_codename, machine_mirror, render_one_line
from lab.commands import as_root, run, run_visibly
from lab.paths import CHECKOUT

_LIST = Path(__file__).with_name("packages.txt")
PACKAGES = tuple(
    line for line in _LIST.read_text().splitlines() if line and not line.startswith("#")
)

# What guests of other architectures need; the second runs their programs while a disk is made
FOREIGN_PACKAGES = {"arm64": ("qemu-system-arm", "qemu-user-static")}

# QEMU 7.2 crashes Linux 6.12 and newer under tcg (a panic in kmem_cache_alloc); 10.0 is the
# oldest known to be good.
QEMU_PACKAGES = ("qemu-system-x86", "qemu-utils", "qemu-system-arm")
QEMU_MINIMUM = 10
# Releases whose own QEMU is older than that.
QEMU_FROM_BACKPORTS = ("bookworm",)


def missing_packages(dpkg_query: str, wanted: Sequence[str] = PACKAGES) -> list[str]:
    """Which packages are absent or too old, from lines of `status package version`."""
    good = set()
    for line in dpkg_query.splitlines():
        status, _space, rest = line.partition(" ")
        name, _space, version = rest.strip().partition(" ")
        if status == "ii" and (name not in QEMU_PACKAGES or major_version(version) >= QEMU_MINIMUM):
            good.add(name)
    return [name for name in wanted if name not in good]


def major_version(version: str) -> int:
    """The first number of a Debian version, after its epoch."""
    match = re.match(r"(?:\d+:)?(\d+)", version)
    return int(match[1]) if match else 0


def installed_packages(wanted: Sequence[str] = PACKAGES) -> str:
    """dpkg's answer; its status is not looked at since it is 1 when any of them is unknown."""
    query = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n", *wanted]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout


def setup(wanted: Sequence[str] = PACKAGES) -> list[str]:
    """Install what is missing and return its names."""
    missing = missing_packages(installed_packages(wanted), wanted)
    if not missing:
        return []
    codename = machine_codename()
    qemu = [name for name in missing if name in QEMU_PACKAGES]
    others = [name for name in missing if name not in QEMU_PACKAGES]
    backports = f"{codename}-backports" if qemu and codename in QEMU_FROM_BACKPORTS else ""
    sources = machine_mirror().sources(codename, [backports] if backports else [])
    with tempfile.TemporaryDirectory(prefix="btfleet-apt-") as folder:
        private = Path(folder)
        # apt drops its rights to fetch, and has to be able to read this.
        private.chmod(0o755)
        (private / "sources.list").write_text(render_one_line(sources, signed=True))
        (private / "parts").mkdir()
        # The least invasive way: sources, package lists and downloads are private to this call.
        # The machine's own sources stay as they are (no backports left behind), and nobody's
        # lists or archive lock is in our way.
        options = [
            f"-oDir::Etc::sourcelist={private}/sources.list",
            f"-oDir::Etc::sourceparts={private}/parts",
            f"-oDir::State::lists={private}/lists",
            f"-oDir::Cache={private}/cache",
        ]
        try:
            run(
                as_root(
                    ["mkdir", "-p", f"{private}/lists/partial", f"{private}/cache/archives/partial"]
                )
            )
            run(as_root(["apt-get", "-q", *options, "update"]))
            install = [str(CHECKOUT / "tools" / "apt_install.sh"), "lab", *options]
            if others:
                run_visibly(as_root([*install, *others]))
            if qemu:
                # A target release, so that what a backport needs comes from there as well.
                release = ["-t", backports] if backports else []
                run_visibly(as_root([*install, *release, *qemu]))
        finally:
            run(as_root(["rm", "-rf", f"{private}/lists", f"{private}/cache"]))
    return missing
