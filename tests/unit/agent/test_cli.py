# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a user calls it: exit codes, and failures in one line.

Where it reads a tracker, this is one made by hand, in a mount namespace in which a bpf file system
of the test's own lies at /sys/fs/bpf and /etc and /var/lib have nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from btfleet import __version__
from btfleet._kernel.bpf import bpf

from tests.unit.kernel_access import (
    MASQUERADED,
    MASQUERADED_V6,
    PING,
    bpffs_at,
    hash_map,
    needs_bpf,
    tracker_map,
)

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "agent")}
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_INSIDE = """
# In a chroot that is no mount point itself, what lies below has to do
mount --make-rprivate / 2>/dev/null || mount --make-rprivate /sys || exit 99
mount --bind "$1" /sys/fs/bpf || exit 99
for folder in /etc/btfleet /var/lib/btfleet; do
    [ ! -d "$folder" ] || mount -t tmpfs none "$folder" || exit 99
done
shift
exec "$@"
"""


def plain(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "btfleet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_ENVIRONMENT,
    )


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as whoever runs the tests, or in place of root as a user without any privilege."""
    nobody = ["unshare", "--user"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*nobody, sys.executable, "-m", "btfleet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_ENVIRONMENT,
    )


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with Python's own library alone."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "btfleet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_ENVIRONMENT,
    )


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    if not os.path.isdir("/sys/fs/bpf"):
        pytest.skip("this kernel has no /sys/fs/bpf")
    with bpffs_at(tmp_path / "bpf") as folder:
        yield folder


@pytest.fixture
def run(mount: Path) -> Run:
    def call(*arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
        inside = [
            "unshare",
            "--mount",
            "--propagation=unchanged",
            "sh",
            "-c",
            _INSIDE,
            "sh",
            str(mount),
        ]
        done = subprocess.run(
            [*inside, sys.executable, "-m", "btfleet", *arguments],
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env=_ENVIRONMENT,
        )
        assert done.returncode != 99, done.stderr
        return done

    return call


@pytest.fixture
def maps(mount: Path) -> Iterator[dict[str, int]]:
    """Maps with three live flows and a closed one, pinned where the command looks."""
    folder = mount / "btfleet"
    folder.mkdir()
    with ExitStack() as stack:
        found = {
            "conntrack_live": stack.enter_context(tracker_map()),
            "conntrack_closed": stack.enter_context(hash_map(44, 64, 64, bpf.LRU_HASH)),
        }
        for name, fd in found.items():
            bpf.obj_pin(fd, str(folder / name))
        for flow in (MASQUERADED, MASQUERADED_V6, PING):
            flow.write(found["conntrack_live"])
        closed = replace(MASQUERADED, orig=("10.0.0.9", 1, "192.0.2.1", 80), closed_ns=1)
        replace(closed, reply=("192.0.2.1", 80, "203.0.113.1", 9)).write(found["conntrack_closed"])
        yield found


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    assert done.returncode == 3, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("btfleet: ")
    return line.removeprefix("btfleet: ")


# --- usage ---------------------------------------------------------------------------------------


def test_the_version() -> None:
    done = plain("--version")
    assert (done.returncode, done.stdout) == (0, f"btfleet {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["conntrack"],
        ["conntrack", "lookup", "192.0.2.1:80"],
        ["conntrack", "dump", "--limit", "many"],
        ["conntrack", "dump", "--state", "dead"],
        ["conntrack", "lookup", "a", "b", "--zone", "x"],
        ["status", "--nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = plain(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: btfleet")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "load", "status", "conntrack"])
def test_each_command_has_help(command: str) -> None:
    assert plain(command, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dump", "--port", "65536"], "port is 65536, needed"),
        (["dump", "--address", "host"], "address is 'host', needed"),
        (["dump", "--protocol", "tcpp"], "protocol is 'tcpp', needed"),
        (["dump", "--protocol", "²"], "protocol is '²', needed"),
        (["dump", "--netns", "no-such"], "no network namespace no-such"),
        (["dump", "--netns", "²"], "no network namespace ²"),
        (["dump", "--limit", "-1"], "limit is -1, needed"),
        (["lookup", "192.0.2.1", "192.0.2.2:1"], "'192.0.2.1' is no address with a port"),
        (["lookup", "1.2.3.400:1", "192.0.2.2:1"], "'1.2.3.400' is no address"),
        (["lookup", "1.2.3.4:1", "[::1]:1"], "1.2.3.4 and ::1 are of two families"),
        (["lookup", "1.2.3.4:1", "1.2.3.5:1", "--zone", "65536"], "zone is 65536, needed"),
        (["lookup", "1.2.3.4:1", "1.2.3.5:1", "--zone", "-1"], "zone is -1, needed"),
        (["lookup", "1.2.3.4:1", "1.2.3.5:1", "--netns", "9" * 12], "namespace 999999999999, "),
        (["lookup", "1.2.3.4:1", "1.2.3.5:1", "--protocol", "256"], "protocol is '256', needed"),
        (["watch", "--interval", "0"], "interval is 0.0, needed"),
        (["watch", "--interval", "nan"], "interval is nan, needed"),
        (["watch", "--interval", "inf"], "interval is inf, needed"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str) -> None:
    assert failure(plain("conntrack", *arguments)).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{}", "object_sha256 is missing"),
        (json.dumps({"object_sha256": "a" * 64, "max_entries": 5}), "max_entries is 5, needed"),
        (json.dumps({"object_sha256": "a" * 64, "nonsense": 5}), "unknown setting 'nonsense'"),
    ],
)
def test_a_bad_spec_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "spec.json").write_text(content)
    assert message in failure(plain("load", "--spec", str(tmp_path / "spec.json")))


def test_a_folder_in_place_of_a_spec_file_is_one_line(tmp_path: Path) -> None:
    assert failure(plain("load", "--spec", str(tmp_path))) == f"{tmp_path}: Is a directory"


def test_a_missing_spec_file_is_one_line(tmp_path: Path) -> None:
    assert "is missing: install the object first" in failure(
        plain("load", "--spec", str(tmp_path / "none"))
    )


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_check_does_not_say_no_for_what_root_alone_may_try(form: list[str]) -> None:
    done = as_nobody("check", *form)
    assert done.stderr == ""
    if form:
        data = json.loads(done.stdout)
        assert "EPERM" not in json.dumps(data["reasons"])
        wanted = {0: (True, True), 1: (False, True), 4: (None, False)}
        assert (data["supported"], data["known"]) == wanted[done.returncode]
    else:
        assert done.returncode in (1, 4)
        first = done.stdout.splitlines()[0]
        assert first.startswith("not known: only root" if done.returncode == 4 else "not supported")
        assert "EPERM" not in done.stdout
        assert "become root" not in done.stdout


@pytest.mark.parametrize("arguments", [["check"], ["check", "--json"], ["--version"]])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_leaves_the_exit_code(arguments: list[str], closed: str) -> None:
    script = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "btfleet", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=_ENVIRONMENT,
    )
    assert done.stderr == ""
    assert done.returncode == plain(*arguments).returncode


def test_a_full_output_is_a_failure_of_one_line() -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run(
            [sys.executable, "-m", "btfleet", "check"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env=_ENVIRONMENT,
        )
    assert (done.returncode, done.stderr) == (3, "btfleet: No space left on device\n")


# --- without the daemons' packages ---------------------------------------------------------------


@pytest.mark.parametrize("command", ["agent", "config-service"])
def test_the_plain_release_says_in_one_line_what_a_daemon_lacks(command: str) -> None:
    line = failure(bare(command))
    assert "no Python package '" in line
    assert "deploy it with the role" in line


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["status"], ["load"], ["conntrack", "dump"], ["conntrack", "watch"], ["--help"]],
)
def test_the_plain_release_does_all_else_without_packages(arguments: list[str]) -> None:
    done = bare(*arguments)
    assert "Traceback" not in done.stderr
    assert "package" not in done.stderr
    assert done.returncode in (0, 1, 3)


# --- without a tracker ---------------------------------------------------------------------------


@needs_bpf
def test_status_without_a_tracker_is_exit_code_1(run: Run) -> None:
    done = run("status")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [f"btfleet {__version__}", "tracker   not loaded"]
    data = json.loads(run("status", "--json").stdout)
    assert (data["loaded"], data["healthy"], data["record"]) == (False, False, None)


@needs_bpf
@pytest.mark.parametrize(
    "arguments", [["dump"], ["dump", "--json"], ["lookup", "1.2.3.4:1", "1.2.3.5:1"], ["watch"]]
)
def test_translations_without_a_tracker_are_a_failure(run: Run, arguments: list[str]) -> None:
    assert failure(run("conntrack", *arguments)).startswith("no tracker is loaded (")


@needs_bpf
def test_a_load_without_a_spec_is_a_failure(run: Run) -> None:
    assert failure(run("load")).startswith("/etc/btfleet/spec.json is missing")


@needs_bpf
def test_check_says_the_same_in_both_forms(run: Run) -> None:
    plain_form, as_json = run("check"), run("check", "--json")
    data = json.loads(as_json.stdout)
    assert plain_form.returncode == as_json.returncode == (0 if data["supported"] else 1)
    first, *others = plain_form.stdout.splitlines()
    assert first == (data["summary"] if data["supported"] else "not supported")
    reasons = {why for found in data["reasons"].values() for why in found}
    if data["hint"]:
        assert others.pop() == f"  {data['hint']}"
    assert len(others) == len(reasons)
    for reason in reasons:
        assert sum(line.endswith(f" {reason}") for line in others) == 1
    assert data["facts"]["probes"]["bpffs"]["value"] == "yes"


# --- with maps -----------------------------------------------------------------------------------


@needs_bpf
def test_a_dump_has_every_flow_once(run: Run, maps: dict[str, int]) -> None:
    assert len(maps) == 2
    lines = run("conntrack", "dump").stdout.splitlines()
    assert lines[0].split() == ["NETNS", "PROTO", "ORIGINAL", "REPLY", "STATE"]
    assert len(lines) == 4
    rows = [json.loads(line) for line in run("conntrack", "dump", "--json").stdout.splitlines()]
    assert sorted(row["protocol"] for row in rows) == ["icmp", "tcp", "udp"]
    assert {row["state"] for row in rows} == {"live"}


@needs_bpf
@pytest.mark.usefixtures("maps")
@pytest.mark.parametrize(
    ("arguments", "protocols"),
    [
        (["--state", "closed"], ["tcp"]),
        (["--state", "all"], ["icmp", "tcp", "tcp", "udp"]),
        (["--address", "FD00:0::2"], ["udp"]),
        (["--port", "40000"], ["tcp"]),
        (["--protocol", "icmp"], ["icmp"]),
        (["--netns", "4026531840"], ["icmp", "tcp", "udp"]),
        (["--netns", "1"], []),
        (["--limit", "0"], []),
    ],
)
def test_a_dump_is_filtered(run: Run, arguments: list[str], protocols: list[str]) -> None:
    done = run("conntrack", "dump", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(row["protocol"] for row in rows) == protocols


@needs_bpf
@pytest.mark.usefixtures("maps")
def test_a_dump_is_limited(run: Run) -> None:
    assert len(run("conntrack", "dump", "--json", "--limit", "2").stdout.splitlines()) == 2


@needs_bpf
@pytest.mark.usefixtures("maps")
def test_a_reader_that_has_seen_enough_is_no_failure(run: Run) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("conntrack", "dump", "--json", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@needs_bpf
@pytest.mark.usefixtures("maps")
@pytest.mark.parametrize(
    ("ends", "protocol", "state", "code"),
    [
        (["10.0.0.2:40000", "192.0.2.1:80"], "tcp", "live", 0),
        (["192.0.2.1:80", "203.0.113.1:1024"], "tcp", "live", 0),
        (["[::ffff:10.0.0.2]:40000", "[::ffff:192.0.2.1]:80"], "tcp", "live", 0),
        (["[fd00::2]:5353", "[2001:DB8:0::1]:53"], "udp", "live", 0),
        (["10.0.0.9:1", "192.0.2.1:80"], "tcp", "closed", 6),
    ],
)
def test_a_look_up_from_either_side(
    run: Run, ends: list[str], protocol: str, state: str, code: int
) -> None:
    where = ["--netns", "4026531840", "--protocol", protocol]
    done = run("conntrack", "lookup", *ends, *where, "--json")
    assert done.returncode == code
    found = json.loads(done.stdout)
    assert found["state"] == state
    assert ("closed_seconds_ago" in found) is (state == "closed")
    done = run("conntrack", "lookup", *ends, *where)
    assert done.returncode == code
    table = done.stdout.splitlines()
    assert len(table) == 2
    assert re.search(rf" {protocol} .* {state}" + r"( \d+ s ago)?$", table[1])


@needs_bpf
@pytest.mark.usefixtures("maps")
def test_a_closed_flow_has_an_age_in_a_dump(run: Run) -> None:
    for filters in ([], ["--port", "80"]):
        (line,) = run("conntrack", "dump", "--json", "--state", "closed", *filters).stdout.split(
            "\n"
        )[:-1]
        assert json.loads(line)["closed_seconds_ago"] > 0


@needs_bpf
@pytest.mark.usefixtures("maps")
@pytest.mark.parametrize("change", [["--zone", "1"], ["--protocol", "udp"], ["--netns", "5"]])
def test_a_look_up_of_what_is_not_translated_is_exit_code_1(run: Run, change: list[str]) -> None:
    given = ["--netns", "4026531840", "--protocol", "tcp", *change]
    done = run("conntrack", "lookup", "10.0.0.2:40000", "192.0.2.1:80", *given)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "not translated\n")


@needs_bpf
@pytest.mark.usefixtures("maps")
def test_pins_without_a_record_are_drift_and_not_loaded(run: Run) -> None:
    done = run("status")
    assert done.returncode == 1
    assert "tracker   not loaded" in done.stdout
    assert "drift     the record of what was loaded is missing or damaged" in done.stdout


_LOOKUP = ["conntrack", "lookup", "--netns", "4026531840"]
_IN_ITS_OWN_SYS = """
mount --make-rprivate / && mount --bind "$1" /sys/fs/bpf || exit 99
shift
# As ip-netns(8) does it
unshare --mount sh -c 'umount --lazy /sys && mount -t sysfs none /sys && exec "$@"' sh "$@"
"""


@needs_bpf
@pytest.mark.usefixtures("maps")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["conntrack", "lookup", "10.0.0.2:40000", "192.0.2.1:80", "--netns", "4026531840"],
            0,
            "live",
        ),
        (["conntrack", "dump"], 0, "203.0.113.1:1024"),
        (["status"], 1, "drift     the record of what was loaded is missing"),
    ],
)
def test_the_hosts_tracker_is_seen_where_sys_was_mounted_anew(
    mount: Path, arguments: list[str], code: int, text: str
) -> None:
    """`ip netns exec r btfleet …`; process 1 has the host's mounts."""
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", _IN_ITS_OWN_SYS),
            *("sh", str(mount), sys.executable, "-m", "btfleet", *arguments),
        ],
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert text in done.stdout


@needs_bpf
def test_where_no_tracker_can_be_seen_the_reason_is_said() -> None:
    inside = 'mount --make-rprivate / && mount -t tmpfs none /sys/fs/bpf && exec "$@"'
    for arguments in (["conntrack", "dump"], ["conntrack", "lookup", "10.0.0.2:1", "10.0.0.3:2"]):
        command = [sys.executable, "-m", "btfleet", *arguments]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside, "sh", *command],
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            check=False,
        )
        assert failure(done).startswith(
            "no bpf file system is at /sys/fs/bpf: load a tracker first, or"
        )


@needs_bpf
def test_watch_shows_what_is_there_what_comes_and_what_goes(
    mount: Path, maps: dict[str, int]
) -> None:
    inside = [
        "unshare",
        "--mount",
        "--propagation=unchanged",
        "sh",
        "-c",
        _INSIDE,
        "sh",
        str(mount),
    ]
    command = ["-m", "btfleet", "conntrack", "watch", "--json", "--interval", "0.05"]
    with subprocess.Popen(
        [*inside, sys.executable, *command, "--protocol", "tcp"],
        stdout=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT,
    ) as process:
        assert process.stdout
        try:
            first = json.loads(process.stdout.readline())
            new = replace(MASQUERADED, orig=("10.0.0.3", 1, "192.0.2.1", 80))
            new = replace(new, reply=("192.0.2.1", 80, "203.0.113.1", 3))
            new.write(maps["conntrack_live"])
            second = json.loads(process.stdout.readline())
            for key, _value in new.entries():
                bpf.map_delete(maps["conntrack_live"], key)
            third = json.loads(process.stdout.readline())
        finally:
            process.kill()
    assert [row["event"] for row in (first, second, third)] == ["new", "new", "closed"]
    assert [row["orig"]["src"] for row in (first, second, third)] == [
        *("10.0.0.2", "10.0.0.3", "10.0.0.3")
    ]
