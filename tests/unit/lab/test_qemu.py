# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line, the choice of its accelerator, and guests found in the process table."""

from __future__ import annotations

import base64
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from lab.catalogue import HOSTS
from lab.image import files_in
from lab.qemu import (
    MACHINES,
    Launch,
    RunningGuest,
    choose_accelerator,
    command_line,
    guest_of_process,
    host_accelerator,
    parse_guest,
)

FLAGS = MACHINES["amd64"].cpu_flags
LAUNCH = Launch(Path("/state/debian12"), 2222, "0f-id", 1024)
FILES = files_in(Path("/cache/image"))


@pytest.mark.parametrize(
    ("opens", "cpuinfo", "expected"),
    [
        (True, "flags\t\t: fpu vmx sse\n", "kvm"),
        (True, "processor: 0\nflags : fpu svm\n", "kvm"),
        # a nested machine: the device opens, yet no guest gets past its firmware
        (True, "flags\t\t: fpu sse\n", "tcg"),
        (True, "flags\t\t: fpu vmxfake\nvmx flags : ept\n", "tcg"),
        (False, "flags\t\t: fpu vmx\n", "tcg"),
        (True, "", "tcg"),
    ],
)
def test_choose_accelerator(opens: bool, cpuinfo: str, expected: str) -> None:
    assert choose_accelerator(opens, cpuinfo, FLAGS) == expected


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_command_line_boots_the_overlay_and_never_the_base() -> None:
    command = command_line(HOSTS["debian12"], FILES, LAUNCH, "tcg")
    assert command[0] == "qemu-system-x86_64"
    assert option(command, "-machine") == "q35,accel=tcg"
    assert option(command, "-cpu") == "max"
    assert option(command, "-m") == "1024"
    assert option(command, "-kernel") == "/cache/image/vmlinuz"
    assert option(command, "-drive").startswith("file=/state/debian12/disk.qcow2,format=qcow2")
    assert not [word for word in command if "disk.img" in word]
    assert "hostfwd=tcp:127.0.0.1:2222-:22" in option(command, "-netdev")
    assert "-no-reboot" not in command


def test_command_line_with_kvm() -> None:
    command = command_line(HOSTS["debian12"], FILES, LAUNCH, "kvm")
    assert (option(command, "-machine"), option(command, "-cpu")) == ("q35,accel=kvm", "host")


def test_an_arm64_guest_is_always_emulated_with_its_own_console() -> None:
    host = HOSTS["debian12-arm64"]
    assert choose_accelerator(True, "flags : vmx", MACHINES["arm64"].cpu_flags) == "tcg"
    command = command_line(host, FILES, LAUNCH, "tcg")
    assert command[0] == "qemu-system-aarch64"
    assert option(command, "-machine") == "virt,accel=tcg"
    assert option(command, "-cpu").startswith("max,")
    assert "console=ttyAMA0" in option(command, "-append").split()


def test_a_guest_that_counts_has_one_emulated_processor_and_a_clock_of_instructions() -> None:
    host = HOSTS["debian13"].counting()
    assert host_accelerator(host) == "tcg"
    command = command_line(host, FILES, LAUNCH, "tcg")
    assert option(command, "-icount") == "shift=0,sleep=on"
    assert option(command, "-smp") == "1"
    assert "-icount" not in command_line(HOSTS["debian13"], FILES, LAUNCH, "tcg")
    found = parse_guest(7, command)
    assert found is not None
    assert found.icount


def test_sshd_of_a_guest_that_counts_has_nothing_against_a_client_that_hung_up() -> None:
    command = command_line(HOSTS["debian13"].counting(), FILES, LAUNCH, "tcg")
    names = "systemd.set_credential_binary=systemd.unit-dropin.ssh.service:"
    values = [
        word[len(names) :] for word in option(command, "-append").split() if word.startswith(names)
    ]
    assert b"SSHD_OPTS=-oPerSourcePenalties=no\n" in base64.b64decode(values[0])


def test_kernel_arguments_of_the_row_and_of_the_call() -> None:
    host = dataclasses.replace(HOSTS["debian13"], kernel_args="lockdown=integrity")
    launch = dataclasses.replace(LAUNCH, append="quiet  debug")
    arguments = option(command_line(host, FILES, launch, "tcg"), "-append").split()
    assert arguments[:3] == ["root=/dev/vda", "rw", "console=ttyS0"]
    assert arguments[-3:] == ["lockdown=integrity", "quiet", "debug"]
    assert "systemd.hostname=debian13" in arguments
    assert "systemd.machine_id=0f-id" in arguments


def test_commas_in_paths_are_doubled() -> None:
    launch = dataclasses.replace(LAUNCH, folder=Path("/a,b/debian12"))
    command = command_line(HOSTS["debian12"], FILES, launch, "tcg")
    assert option(command, "-serial") == "file:/a,,b/debian12/console.log"
    assert option(command, "-drive").startswith("file=/a,,b/debian12/disk.qcow2,")


def test_a_guest_is_found_by_its_command_line() -> None:
    command = command_line(HOSTS["debian12"], FILES, LAUNCH, "tcg")
    guest = parse_guest(7, command)
    assert guest == RunningGuest(7, "/state/debian12/qemu.pid", 2222, "tcg", 1024)
    assert (guest.name, guest.state) == ("debian12", Path("/state"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["vim", "-pidfile", "/state/debian12/qemu.pid"],
        ["qemu-system-x86_64", "-pidfile", "/state/debian12/qemu.pid"],
        ["/usr/bin/qemu-system-x86_64", "-netdev", "user,hostfwd=tcp:127.0.0.1:1-:22"],
    ],
)
def test_other_processes_are_not_guests(arguments: list[str]) -> None:
    assert parse_guest(7, arguments) is None


@pytest.mark.needs_root
@pytest.mark.parametrize("chroot", ["", "os.chroot('/usr')"])
def test_a_guest_of_another_root_that_names_the_same_files_is_not_ours(chroot: str) -> None:
    words = command_line(HOSTS["debian12"], FILES, LAUNCH, "tcg")
    script = f"import os, sys; {chroot}\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [words[0], "-c", script, *words[1:]],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = guest_of_process(process.pid)
        assert (found.name if found else None) == (None if chroot else "debian12")
