# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Offering a host the release by its digest; sending it, or a tree made for the host, if asked."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.host_python import (
    ARCHES,
    INTERPRETER,
    HostPython,
    tree_name,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._release.release import release_name
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import agent_tree
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending.sending import (
    FILES,
    SendingAction,
    digest,
)

_ARCHIVE = re.compile(r"btfleet-(.+)\.tar\.gz")
_TAG = re.compile(r"cp3[0-9]{1,2}")
_PRIVATE = ("_version", "_sha256", "_archive", "_archive_sha256")


def _python(answer: Any, arguments: dict[str, Any]) -> HostPython:
    """The host's Python. What a host says becomes part of a path here, so it has to be in form."""
    tag, arch = str(answer.get("tag")), answer.get("arch")
    if not _TAG.fullmatch(tag) or arch not in ARCHES:
        raise AnsibleActionFail(f"the host asks for the Python {tag!r} on {arch!r}: there is none")
    return HostPython(tag, arch, str(arguments.get("interpreter") or INTERPRETER))


class ReleaseAction(SendingAction):
    """An action whose module installs a release."""

    def arguments(self) -> dict[str, Any]:
        """The task's own; raises AnsibleActionFail for those that are not the user's to set."""
        given = dict(self._task.args)
        if any(name in given for name in _PRIVATE):
            raise AnsibleActionFail(f"{', '.join(_PRIVATE)} are set by the action plugin alone")
        return given

    def read_text(self, name: str, option: str) -> str:
        """The text file on the control node that an option names; raises AnsibleActionFail."""
        path = self._find_needle("files", name)
        try:
            with open(path, encoding="ascii") as stream:
                return stream.read(1 << 20)
        except OSError as exc:
            raise AnsibleActionFail(
                f"cannot read {option} {path} on the control node ({exc.strerror})"
            ) from exc
        except UnicodeDecodeError:
            raise AnsibleActionFail(f"{option} {path} is no text file") from None

    def install(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """One module run; a second one, after a transfer, where the release was missing."""
        version, sha256, path = self.offered(arguments.pop("src", None))
        sources = self._sources(arguments)
        arguments.update(_version=version, _sha256=sha256)
        try:
            answer = self.execute(arguments, task_vars)
            if answer.pop("needs_archive", False):
                python = answer.pop("python", None)
                if python:
                    loader = release_name(version, sha256)
                    path = self._tree(loader, path, _python(python, arguments), sources)
                    sha256 = digest(path, "the agent's tree")
                arguments.update(_archive=self.send(path), _archive_sha256=sha256)
                answer = self.execute(arguments, task_vars)
        finally:
            self.clean()
        return answer

    def offered(self, src: str | None) -> tuple[str, str, str]:
        """Version, digest and path of the release archive; raises AnsibleActionFail."""
        path = self._release(src)
        match = _ARCHIVE.fullmatch(os.path.basename(path))
        if match is None:
            raise AnsibleActionFail(f"{path} is not named btfleet-<version>.tar.gz")
        return match.group(1), digest(path, "the release archive"), path

    def _sources(self, arguments: dict[str, Any]) -> agent_tree.Sources:
        """Takes what only concerns the control node out of the arguments."""
        pip_arguments = arguments.pop("pip_arguments", None) or []
        if not isinstance(pip_arguments, list):
            raise AnsibleActionFail(f"pip_arguments is {pip_arguments!r}, needed: a list of texts")
        archives = arguments.pop("archives", None)
        return agent_tree.Sources(
            agent_tree.cache_folder(),
            os.path.expanduser(str(archives)) if archives else None,
            tuple(map(str, pip_arguments)),
        )

    def _tree(self, loader: str, path: str, python: HostPython, sources: agent_tree.Sources) -> str:
        try:
            return agent_tree.obtain(tree_name(loader, python), path, python, sources)
        except ArchiveError as exc:
            raise AnsibleActionFail(str(exc)) from exc

    def _release(self, src: str | None) -> str:
        if src:
            return str(self._find_needle("files", src))
        names = sorted(os.listdir(FILES)) if os.path.isdir(FILES) else []
        found = [name for name in names if _ARCHIVE.fullmatch(name)]
        if len(found) != 1:
            raise AnsibleActionFail(
                f"the collection has {len(found)} release archives in {FILES}, needed: one: run "
                "`make release` in a checkout, or install the built collection"
            )
        return os.path.join(FILES, found[0])
