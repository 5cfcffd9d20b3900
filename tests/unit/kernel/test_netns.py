# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and names of namespaces."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from btfleet._kernel.conntrack import namespaces, netns

from tests.unit.kernel_access import bind, in_own_mounts, namespace, needs_root


def test_the_own_number_is_what_the_kernel_calls_it() -> None:
    number = int(os.readlink("/proc/self/ns/net").removeprefix("net:[").removesuffix("]"))
    assert netns.own() == number


@needs_root
def test_a_namespace_that_only_a_mount_holds_is_found_and_has_its_name() -> None:
    name = f"btfleet-unit-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        number = os.stat(f"/run/netns/{name}").st_ino
        assert f"/run/netns/{name}" in namespaces.find()[number].paths
        assert netns.names()[number] == name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert number not in netns.names()


def test_without_any_names_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_NAMES", str(tmp_path / "none"))
    assert netns.names() == {}


@needs_root
def test_a_file_that_is_no_namespace_gives_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("plain", "real"):
        (tmp_path / name).touch()
    (tmp_path / "broken").symlink_to("/nowhere")
    monkeypatch.setattr(netns, "_NAMES", str(tmp_path))

    with namespace() as path:

        def body() -> dict[int, str]:
            bind(path, str(tmp_path / "real"))
            return netns.names()

        assert in_own_mounts(body) == {os.stat(path).st_ino: "real"}
