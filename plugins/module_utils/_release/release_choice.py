# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release a host gets of what the control node offers, and putting it there."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ansible_collections.btfleet.conntrack.plugins.module_utils._host.commands import Runner

from . import host_python, release
from .host_python import HostPython
from .release import Compiler, Layout, ReleaseError


class Offer(NamedTuple):
    """What the action plugin says: version and digest of the release without dependencies; and,
    where one was asked for, the archive on the host and the digest that it has to have.
    """

    version: str
    sha256: str
    archive: str | None = None
    archive_sha256: str | None = None


class Choice(NamedTuple):
    """The release's name, and the Python that it is for if it comes with dependencies."""

    name: str
    python: HostPython | None = None

    def request(self) -> dict[str, object]:
        """What the action plugin is asked for."""
        python = {"tag": self.python.tag, "arch": self.python.arch} if self.python else None
        return {"changed": False, "needs_archive": True, "python": python}


def choose(
    offer: Offer, current: str | None, dependencies: bool | None, run: Runner, interpreter: str
) -> Choice:
    """The release for this host; raises HostError if its Python cannot run the dependencies.

    Without a word about them it stays with dependencies if it has them: something runs on them.
    """
    loader = release.release_name(offer.version, offer.sha256)
    if dependencies is None:
        dependencies = release.has_dependencies(current)
    if not dependencies:
        return Choice(loader)
    python = host_python.read(run, interpreter)
    return Choice(host_python.tree_name(loader, python), python)


def unpack(layout: Layout, run: Runner, offer: Offer, choice: Choice) -> None:
    """Unpacks what was sent; raises ReleaseError if it is not what was meant to be sent."""
    with open(str(offer.archive), "rb") as stream:
        content = stream.read()
    found = hashlib.sha256(content).hexdigest()
    if found != offer.archive_sha256:
        raise ReleaseError(f"the archive arrived with sha256 {found}, not {offer.archive_sha256}")
    compile_all = _compiler(run, choice.python) if choice.python else release.compile_here
    release.unpack(layout, content, choice.name, compile_all)


def _compiler(run: Runner, python: HostPython) -> Compiler:
    """Compiles with the Python that will run it, which need not be the one that runs us."""

    def compile_all(folder: str, place: str) -> None:
        # A file that does not compile is one that nobody imports
        mode = "--invalidation-mode=unchecked-hash"
        run([python.interpreter, "-IS", "-m", "compileall", "-qq", mode, "-d", place, folder])

    return compile_all
