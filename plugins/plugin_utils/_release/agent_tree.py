# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of the agent: the release with all that it needs, for one Python and architecture.

They are built on the control node, once, from wheels that pip gets against locked hashes, and kept
in the user's cache. Nothing of a host's is needed for it, and no index on the host.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import Iterator, NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    HostPython,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import release_archive
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)

# glibc 2.28 and the older names of what it takes as well
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


class Sources(NamedTuple):
    """Where a tree is to be had. `archives` is a folder of trees that somebody else has built, and
    `pip_arguments` say where pip looks for wheels.
    """

    cache: str
    archives: str | None = None
    pip_arguments: tuple[str, ...] = ()


def cache_folder() -> str:
    """The user's cache of trees."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "btfleet", "trees")


def file_name(name: str) -> str:
    """The file of the tree with this name (see `host_python.tree_name`)."""
    return f"btfleet-{name}.tar.gz"


def obtain(name: str, loader: str, python: HostPython, sources: Sources) -> str:
    """Path of the tree's archive: from the folder of archives, the cache, or newly built.

    `loader` is the path of the release archive without dependencies. Raises ArchiveError. However
    many ask at a time, one of them builds.
    """
    wanted = file_name(name)
    if sources.archives:
        ready = os.path.join(sources.archives, wanted)
        if os.path.isfile(ready):
            return ready
    path = os.path.join(sources.cache, wanted)
    if os.path.isfile(path):
        return path
    try:
        os.makedirs(sources.cache, mode=0o700, exist_ok=True)
        with _locked(path), open(loader, "rb") as stream:
            if not os.path.isfile(path):
                _write(path, build(stream.read(), python, sources.pip_arguments))
    except OSError as exc:
        raise ArchiveError(
            f"cannot keep the agent's tree in {sources.cache} ({exc.strerror}): make room, or set "
            "XDG_CACHE_HOME"
        ) from None
    except ArchiveError as exc:
        if sources.archives:
            raise ArchiveError(f"{sources.archives} has no {wanted}, and {exc}") from None
        raise
    return path


def build(loader: bytes, python: HostPython, pip_arguments: tuple[str, ...]) -> bytes:
    """The archive of a tree, from the release archive without dependencies; raises ArchiveError."""
    top, content = release_archive.unpack(loader)
    requirements = content.get(release_archive.REQUIREMENTS)
    if requirements is None:
        raise ArchiveError(f"the release archive has no {release_archive.REQUIREMENTS}")
    content[release_archive.LAUNCHER] = release_archive.launcher(python.interpreter)
    for name, raw in sorted(wheels(requirements, python, pip_arguments).items()):
        release_archive.add_wheel(content, name, raw)
    return release_archive.pack(top, release_archive.without_dead_weight(content))


def wheels(
    requirements: bytes, python: HostPython, pip_arguments: tuple[str, ...]
) -> dict[str, bytes]:
    """The wheels that the locked requirements name, by file name; raises ArchiveError.

    pip only downloads here, and takes nothing whose hash is not in the list.
    """
    with tempfile.TemporaryDirectory(prefix="btfleet-") as folder:
        listed = os.path.join(folder, release_archive.REQUIREMENTS)
        with open(listed, "wb") as stream:
            stream.write(requirements)
        target = os.path.join(folder, "wheels")
        _run(pip_command(python, listed, target, pip_arguments), python)
        found = {}
        for name in os.listdir(target):
            with open(os.path.join(target, name), "rb") as stream:
                found[name] = stream.read()
        return found


def pip_command(
    python: HostPython, listed: str, target: str, pip_arguments: tuple[str, ...]
) -> list[str]:
    """What pip is asked for: wheels alone, for another Python than its own, against hashes."""
    command = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={python.version}"]
    command += [f"--abi={abi}" for abi in (python.tag, "abi3", "none")]
    command += [f"--platform={platform}_{python.arch}" for platform in _PLATFORMS]
    return [*_pip(), *command, *pip_arguments, f"--dest={target}", f"--requirement={listed}"]


def _pip() -> list[str]:
    """Ansible's own Python's pip, else the one on PATH."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise ArchiveError(
            "the control node has no pip, which gets the agent's packages: install it, or give "
            "trees that are built already (archives)"
        )
    return [found]


def _run(command: list[str], python: HostPython) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        said = (lines or done.stderr.split("\n") or [""])[0]
        raise ArchiveError(
            f"pip cannot get the agent's packages for {python.tag} on {python.arch} "
            f"({said.strip() or done.returncode}): say where they are (pip_arguments), or give "
            "trees that are built already (archives)"
        )


@contextmanager
def _locked(path: str) -> Iterator[None]:
    with open(f"{path}.lock", "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(path: str, content: bytes) -> None:
    fd, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
