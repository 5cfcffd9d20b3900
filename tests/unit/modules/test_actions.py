# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are offered by digest, and sent to a host only when it says that it lacks them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.btfleet.conntrack.plugins.action import (
    conntrack_object,
    poller_agent,
    release,
)
from ansible_collections.btfleet.conntrack.plugins.module_utils._kernel.host.object_choice import (
    ANY,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release import agent_tree
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._release.release_archive import (
    ArchiveError,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._sending import (
    release_sending,
    sending,
)

DONE = {"changed": False}


class Host:
    """Stands for the connection: answers the module runs, and keeps what was sent."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = [dict(answer) for answer in answers]
        self.runs: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self.cleaned = 0


def action(plugin: Any, host: Host, arguments: dict[str, Any], files: Path) -> Any:
    """An action plugin for one task, with the host in place of a connection."""
    task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, action="it")
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/tmp/x"))  # noqa: S108
    made = plugin.ActionModule(task, connection, None, None, None)

    def execute(given: dict[str, Any], _task_vars: dict[str, Any]) -> dict[str, Any]:
        host.runs.append(dict(given))
        return host.answers.pop(0)

    def send(path: str) -> str:
        host.sent.append(path)
        return "/remote/file"

    def clean() -> None:
        host.cleaned += 1

    made.execute, made.send, made.clean = execute, send, clean
    made._find_needle = lambda _folder, name: str(files / name)
    return made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The collection's own files."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("conntrack-x86_64.bpf.o", "conntrack-aarch64.bpf.o", "btfleet-1.2.3.tar.gz"):
        (folder / name).write_text(name)
    for name in ("notes.txt", "conntrack-x86_64.bpf.o.bak", "conntrack-.bpf.o"):
        (folder / name).write_text("no object")
    for plugin in (sending, release_sending):
        monkeypatch.setattr(plugin, "FILES", str(folder))
    return folder


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


OFFER = {
    "x86_64": digest("conntrack-x86_64.bpf.o"),
    "aarch64": digest("conntrack-aarch64.bpf.o"),
}


# --- conntrack_object ----------------------------------------------------------------------------


def test_a_host_that_has_the_object_costs_one_run(files: Path) -> None:
    host = Host(DONE)
    result = action(conntrack_object, host, {"state": "loaded"}, files).run(task_vars={})
    assert result == DONE
    assert host.runs == [{"state": "loaded", "_objects": OFFER}]
    assert host.sent == []


def test_a_host_that_lacks_it_gets_the_one_for_its_architecture(files: Path) -> None:
    host = Host({"needs_object": True, "arch": "aarch64"}, {"changed": True})
    result = action(conntrack_object, host, {"state": "loaded"}, files).run(task_vars={})
    assert result == {"changed": True}
    assert host.sent == [str(files / "conntrack-aarch64.bpf.o")]
    assert host.runs[1] == {**host.runs[0], "_object": "/remote/file"}
    assert host.cleaned == 1


def test_an_object_that_the_user_named_is_for_every_architecture(files: Path) -> None:
    host = Host({"needs_object": True, "arch": "riscv64"}, {"changed": True})
    arguments = {"src": "notes.txt", "sha256": "a" * 64}
    action(conntrack_object, host, arguments, files).run(task_vars={})
    assert host.runs[0] == {"sha256": "a" * 64, "_objects": {ANY: digest("no object")}}
    assert host.sent == [str(files / "notes.txt")]


@pytest.mark.parametrize(
    "arguments",
    [{"state": "unloaded"}, {"state": "absent"}, {"src": "/on/the/host", "remote_src": "yes"}],
)
def test_nothing_is_offered_where_nothing_is_needed(files: Path, arguments: dict[str, Any]) -> None:
    host = Host(DONE)
    action(conntrack_object, host, arguments, files).run(task_vars={})
    assert host.runs == [arguments]


@pytest.mark.parametrize("name", ["_object", "_objects"])
def test_the_plugins_own_arguments_are_not_the_users(files: Path, name: str) -> None:
    with pytest.raises(AnsibleActionFail, match="set by the action plugin alone"):
        action(conntrack_object, Host(), {name: "x"}, files).run(task_vars={})


def test_a_collection_without_objects_says_how_to_make_them(files: Path) -> None:
    for path in files.iterdir():
        path.unlink()
    with pytest.raises(AnsibleActionFail, match=r"the collection has no object in .*make object"):
        action(conntrack_object, Host(), {}, files).run(task_vars={})


def test_a_file_that_cannot_be_read_is_named(files: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"cannot read the object .*/none.*No such file"):
        action(conntrack_object, Host(), {"src": "none"}, files).run(task_vars={})


def test_a_failing_module_run_is_cleaned_up_after(files: Path) -> None:
    host = Host({"failed": True, "msg": "no"})
    result = action(conntrack_object, host, {}, files).run(task_vars={})
    assert result["failed"] is True
    assert host.cleaned == 1


# --- release -------------------------------------------------------------------------------------


def test_a_host_that_has_the_release_costs_one_run(files: Path) -> None:
    host = Host(DONE)
    action(release, host, {"keep": 3}, files).run(task_vars={})
    assert host.runs == [
        {"keep": 3, "_version": "1.2.3", "_sha256": digest("btfleet-1.2.3.tar.gz")}
    ]
    assert host.sent == []


def test_a_host_that_lacks_the_release_gets_it(files: Path) -> None:
    host = Host({"needs_archive": True}, {"changed": True})
    assert action(release, host, {}, files).run(task_vars={}) == {"changed": True}
    assert host.sent == [str(files / "btfleet-1.2.3.tar.gz")]
    assert host.runs[1]["_archive"] == "/remote/file"
    assert host.runs[1]["_archive_sha256"] == digest("btfleet-1.2.3.tar.gz")


def test_a_removal_needs_no_archive(files: Path) -> None:
    host = Host(DONE)
    action(release, host, {"state": "absent"}, files).run(task_vars={})
    assert host.runs == [{"state": "absent"}]


def test_an_archive_of_another_name_has_no_version(files: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"is not named btfleet-<version>\.tar\.gz"):
        action(release, Host(), {"src": "notes.txt"}, files).run(task_vars={})


@pytest.mark.parametrize("count", [0, 2])
def test_there_has_to_be_one_archive(files: Path, count: int) -> None:
    (files / "btfleet-1.2.3.tar.gz").unlink()
    for number in range(count):
        (files / f"btfleet-{number}.tar.gz").write_text("x")
    with pytest.raises(AnsibleActionFail, match=f"the collection has {count} release archives"):
        action(release, Host(), {}, files).run(task_vars={})


LOADER = f"1.2.3-{digest('btfleet-1.2.3.tar.gz')[:12]}"


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of the builder of trees, which gives one."""
    asked: list[tuple[Any, ...]] = []
    (tmp_path / "tree").write_text("tree")

    def obtain(*arguments: Any) -> str:
        asked.append(arguments)
        return str(tmp_path / "tree")

    monkeypatch.setattr(agent_tree, "obtain", obtain)
    return asked


def test_a_host_that_lacks_a_tree_gets_the_one_for_its_python(
    files: Path, trees: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    host = Host(
        {"needs_archive": True, "python": {"tag": "cp311", "arch": "aarch64"}}, {"changed": True}
    )
    arguments = {"dependencies": True, "pip_arguments": ["--no-index"], "archives": "/archives"}
    assert action(release, host, arguments, files).run(task_vars={}) == {"changed": True}
    assert [set(run) for run in host.runs] == [
        {"dependencies", "_version", "_sha256"},
        {"dependencies", "_version", "_sha256", "_archive", "_archive_sha256"},
    ]
    assert host.sent == [str(tmp_path / "tree")]
    assert host.runs[1]["_archive_sha256"] == digest("tree")
    assert host.runs[1]["_sha256"] == digest("btfleet-1.2.3.tar.gz")
    name, path, python, sources = trees[0]
    assert name == f"{LOADER}-cp311-aarch64-1"
    assert path == str(files / "btfleet-1.2.3.tar.gz")
    assert python == ("cp311", "aarch64", "/usr/bin/python3")
    assert (sources.archives, sources.pip_arguments) == ("/archives", ("--no-index",))


@pytest.mark.parametrize(
    "python",
    [
        {"tag": "../../evil", "arch": "x86_64"},
        {"tag": "cp311", "arch": "x86_64/../.."},
        {"tag": "cp27", "arch": "x86_64"},
        {"tag": "cp311\n", "arch": "x86_64"},
        {"tag": "cp311"},
    ],
)
def test_a_host_cannot_ask_for_a_path_of_its_choice(
    files: Path, trees: list[tuple[Any, ...]], python: dict[str, str]
) -> None:
    host = Host({"needs_archive": True, "python": python})
    with pytest.raises(AnsibleActionFail, match="there is none"):
        action(release, host, {}, files).run(task_vars={})
    assert trees == []
    assert host.cleaned == 1


def test_a_tree_that_cannot_be_built_is_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def obtain(*_arguments: Any) -> str:
        raise ArchiveError("pip cannot")

    monkeypatch.setattr(agent_tree, "obtain", obtain)
    host = Host({"needs_archive": True, "python": {"tag": "cp311", "arch": "x86_64"}})
    with pytest.raises(AnsibleActionFail, match=r"^pip cannot$"):
        action(release, host, {}, files).run(task_vars={})


@pytest.mark.parametrize("plugin", [release, poller_agent])
@pytest.mark.parametrize("name", ["_archive", "_sha256", "_version", "_archive_sha256"])
def test_what_the_release_action_sets_is_not_the_users(files: Path, plugin: Any, name: str) -> None:
    with pytest.raises(AnsibleActionFail, match="set by the action plugin alone"):
        action(plugin, Host(), {name: "x"}, files).run(task_vars={})


# --- poller_agent --------------------------------------------------------------------------------


def test_files_of_the_control_node_are_brought_along(files: Path) -> None:
    (files / "ca.pem").write_text("certificates")
    (files / "1.root.json").write_text("{}")
    host = Host(DONE)
    arguments = {"service": "s:1", "ca": "ca.pem", "director_root": "1.root.json", "token": "t"}
    action(poller_agent, host, arguments, files).run(task_vars={"inventory_hostname": "edge1"})
    assert host.runs == [
        {
            "service": "s:1",
            "token": "t",
            "host": "edge1",
            "_ca": "certificates",
            "_director_root": "{}",
            "_version": "1.2.3",
            "_sha256": digest("btfleet-1.2.3.tar.gz"),
        }
    ]


def test_a_name_that_was_given_is_the_hosts(files: Path) -> None:
    host = Host(DONE)
    action(poller_agent, host, {"host": "other"}, files).run(
        task_vars={"inventory_hostname": "edge1"}
    )
    assert host.runs[0]["host"] == "other"
    assert "_ca" not in host.runs[0]


def test_removing_the_agent_needs_no_archive(files: Path) -> None:
    host = Host(DONE)
    action(poller_agent, host, {"state": "absent"}, files).run(task_vars={})
    assert host.runs == [{"state": "absent"}]


@pytest.mark.parametrize("name", ["_ca", "_director_root"])
def test_contents_are_not_the_users_to_set(files: Path, name: str) -> None:
    with pytest.raises(AnsibleActionFail, match="set by the action plugin alone"):
        action(poller_agent, Host(), {name: "x"}, files).run(task_vars={})


def test_a_file_of_the_control_node_that_cannot_be_sent_is_named(files: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"cannot read ca .*/none on the control node"):
        action(poller_agent, Host(), {"ca": "none"}, files).run(task_vars={})
    (files / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(AnsibleActionFail, match=r"director_root .* is no text file"):
        action(poller_agent, Host(), {"director_root": "binary"}, files).run(task_vars={})


# --- all -----------------------------------------------------------------------------------------


def test_both_ends_mean_the_same_by_any() -> None:
    assert conntrack_object._ANY == ANY


def test_files_are_looked_for_in_the_role(checkout: Path) -> None:
    assert Path(sending.FILES) == checkout / "roles" / "conntracker" / "files"
