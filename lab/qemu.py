# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU: which accelerator, which command line, and which of this machine's processes are guests."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lab.catalogue import Host
from lab.commands import run
from lab.errors import LabError
from lab.image import ImageFiles
from lab.setup_machine import QEMU_MINIMUM


@dataclass(frozen=True)
class Machine:
    """How an architecture is emulated."""

    program: str
    machine: str
    console: str
    # One of them in /proc/cpuinfo says that kvm can run a stock kernel.
    cpu_flags: tuple[str, ...] = ()
    emulated_cpu: str = "max"


MACHINES = {
    "amd64": Machine("qemu-system-x86_64", "q35", "ttyS0", ("vmx", "svm")),
    # pauth-impdef: QEMU's own algorithm for pointer authentication, the quick one by its manual
    "arm64": Machine("qemu-system-aarch64", "virt", "ttyAMA0", (), "max,pauth-impdef=on"),
}

# The guest's clock: 2^0 ns per instruction, whatever else this machine does. While the guest is
# idle the clock goes on as here (sleep=on): without that it jumps to the guest's next timer, and
# what waits for a packet or a disk, as sshd does, is at its timeout at once.
ICOUNT = ("-icount", "shift=0,sleep=on")
# A busy guest's clock is slow: what sshd (9.8 and newer) has against a client that hung up, such as
# one that only looks whether it answers, would last for minutes. systemd 256 and newer reads this.
_SSHD = b"[Service]\nEnvironmentFile=\nEnvironment=SSHD_OPTS=-oPerSourcePenalties=no\n"
ICOUNT_ARGS = (
    "systemd.set_credential_binary=systemd.unit-dropin.ssh.service:"
    + base64.b64encode(_SSHD).decode()
)


@dataclass(frozen=True)
class Launch:
    """Everything that differs from one start of a guest to the next."""

    folder: Path  # of this guest: overlay, console log, pid file
    port: int
    machine_id: str
    memory_mb: int
    append: str = ""

    @property
    def overlay(self) -> Path:
        """The throw-away disk."""
        return self.folder / "disk.qcow2"

    @property
    def console_log(self) -> Path:
        """What the guest's kernel and systemd said."""
        return self.folder / "console.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU itself said."""
        return self.folder / "qemu.log"

    @property
    def pid_file(self) -> Path:
        """Written by QEMU; also the mark by which the process is found again."""
        return self.folder / "qemu.pid"


def choose_accelerator(kvm_opens: bool, cpuinfo: str, cpu_flags: tuple[str, ...]) -> str:
    """kvm only where it truly runs a stock kernel.

    A nested machine's /dev/kvm may open, and yet a guest never leaves the firmware on it.
    """
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = match[1].split() if match else []
    return "kvm" if kvm_opens and not set(flags).isdisjoint(cpu_flags) else "tcg"


def host_accelerator(host: Host) -> str:
    """The accelerator for this host on this machine. Only an emulated processor can count."""
    return "tcg" if host.icount else machine_accelerator(find_machine(host))


def machine_accelerator(machine: Machine) -> str:
    """The accelerator for this machine."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        kvm_opens = True
    except OSError:
        kvm_opens = False
    return choose_accelerator(kvm_opens, Path("/proc/cpuinfo").read_text(), machine.cpu_flags)


def check_version(program: str) -> None:
    """Refuse a QEMU whose tcg crashes new kernels, instead of a guest that panics."""
    match = re.search(r"version (\d+)", run([program, "--version"]))
    if match and int(match[1]) < QEMU_MINIMUM:
        raise LabError(
            f"{program} is version {match[1]}, but the lab needs {QEMU_MINIMUM}: "
            "run `python3 -m lab setup`"
        )


def find_machine(host: Host) -> Machine:
    """How the host's architecture is emulated."""
    return MACHINES[host.image.arch]


def command_line(host: Host, files: ImageFiles, launch: Launch, accelerator: str) -> list[str]:
    """The whole command that starts a guest in the background."""
    machine = find_machine(host)
    kernel_args = (
        f"root=/dev/vda rw console={machine.console} panic=10"
        # One image serves many hosts: what makes a guest unique is given here, and stays the
        # same when it reboots.
        f" systemd.hostname={host.name} systemd.machine_id={launch.machine_id}"
        f" {ICOUNT_ARGS if host.icount else ''} {host.kernel_args} {launch.append}"
    )
    disk = f"file={escaped(launch.overlay)},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"
    return [
        machine.program,
        *("-name", f"{host.name},process={'btfleet-' + host.name}"),
        *("-pidfile", str(launch.pid_file)),
        "-daemonize",
        # Without a log, a daemon's stderr goes nowhere, and with it the reason why it ended.
        *("-D", str(launch.qemu_log)),
        *("-d", "guest_errors"),
        *("-uuid", launch.machine_id),
        *("-machine", f"{machine.machine},accel={accelerator}"),
        *("-cpu", "host" if accelerator == "kvm" else machine.emulated_cpu),
        *("-smp", str(host.cpus)),
        *(ICOUNT if host.icount else ()),
        *("-m", str(launch.memory_mb)),
        "-nodefaults",
        *("-display", "none"),
        *("-serial", f"file:{escaped(launch.console_log)}"),
        *("-kernel", str(files.kernel)),
        *("-initrd", str(files.initrd)),
        *("-append", " ".join(kernel_args.split())),
        # cache=unsafe: a flush costs nothing, and the disk dies with the guest anyway.
        *("-drive", disk),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{launch.port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]


def escaped(path: Path) -> str:
    """A path inside of a QEMU option, where a comma has to be doubled."""
    return str(path).replace(",", ",,")


@dataclass(frozen=True)
class RunningGuest:
    """A guest as the process table has it."""

    pid: int
    pid_file: str  # <state folder>/<name>/qemu.pid
    port: int
    accelerator: str
    memory_mb: int
    icount: bool = False

    @property
    def name(self) -> str:
        """The host's name in the catalogue."""
        return Path(self.pid_file).parent.name

    @property
    def state(self) -> Path:
        """The state folder that it belongs to."""
        return Path(self.pid_file).parent.parent


def parse_guest(pid: int, arguments: list[str]) -> RunningGuest | None:
    """The guest behind a command line, or None when it is not one of ours."""
    if not arguments or not Path(arguments[0]).name.startswith("qemu-system-"):
        return None
    options = dict(zip(arguments[1:], arguments[2:]))
    forward = re.search(r"hostfwd=tcp:127\.0\.0\.1:(\d+)-:22", " ".join(arguments))
    accelerator = re.search(r"accel=(\w+)", options.get("-machine", ""))
    if "-pidfile" not in options or forward is None or accelerator is None:
        return None
    memory_mb = int(options.get("-m", "0"))
    return RunningGuest(
        pid,
        options["-pidfile"],
        int(forward[1]),
        accelerator[1],
        memory_mb,
        icount="-icount" in options,
    )


def guest_of_process(pid: int) -> RunningGuest | None:
    """The guest that this process is.

    A process in a chroot may name the same files and mean others, so it has to have our root.
    """
    process = Path(f"/proc/{pid}")
    try:
        raw = process.joinpath("cmdline").read_bytes()
        with contextlib.suppress(PermissionError):  # another user's
            if not process.joinpath("root").samefile("/"):
                return None
    except OSError:
        return None
    return parse_guest(pid, raw.decode(errors="surrogateescape").split("\0")[:-1])


def all_running_guests() -> list[RunningGuest]:
    """All guests on this machine.

    The process table is the only record: it can't be stale, and a guest is found even when its
    folder was deleted.
    """
    processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [guest for guest in map(guest_of_process, processes) if guest]


def running_guests(state: Path) -> dict[str, RunningGuest]:
    """The guests of a state folder, by name."""
    found = {guest.name: guest for guest in all_running_guests() if guest.state == state}
    return dict(sorted(found.items()))
