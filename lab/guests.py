# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping guests."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lab import qemu, ssh
from lab.catalogue import Host, Image
from lab.commands import PROGRESS_SECONDS, run
from lab.errors import GuestEnded, LabError
from lab.image import ImageFiles, ensure_image
from lab.inventory import write_inventory
from lab.paths import DEFAULT_STATE, locked

LAST_LINES = 5


def start(
    hosts: Sequence[Host],
    state: Path,
    say: Callable[[str], None],
    append: str = "",
    memory_mb: int | None = None,
    timeout: float = 300,
) -> Path:
    """Boot what is not running yet, wait until all of them answer, and return the inventory."""
    files = {host.name: ensure_image(host.image, say) for host in hosts}
    key = ssh.private_key()
    with locked(state / "lock"):
        started = time.monotonic()
        already = qemu.running_guests(state)
        for host in hosts:
            check_clock(host, already.get(host.name))
            if host.name not in already:
                _launch(host, files[host.name], state, append, memory_mb or host.memory_mb)
        for host in hosts:
            try:
                _wait_for_ssh(host.name, state, key, started + timeout, say)
            except GuestEnded as error:
                # Seen twice in hundreds of boots under emulation; a second try has to do
                say(f"{error}; starting it once more")
                _launch(host, files[host.name], state, append, memory_mb or host.memory_mb)
                _wait_for_ssh(host.name, state, key, time.monotonic() + timeout, say)
            if host.name not in already:
                say(f"{host.name} answers ssh after {time.monotonic() - started:.1f} s")
        return write_inventory(state, qemu.running_guests(state), key)


def start_again(
    host: Host,
    state: Path,
    say: Callable[[str], None],
    kernel: Image | None = None,
    append: str = "",
    timeout: float = 900,
) -> Path:
    """Boot a guest that shuts itself down from its own disk, or with another image's kernel."""
    files = ensure_image(host.image, say)
    if kernel:
        other = ensure_image(kernel, say)
        files = replace(files, kernel=other.kernel, initrd=other.initrd)
    key = ssh.private_key()
    with locked(state / "lock"):
        deadline = time.monotonic() + timeout
        while host.name in qemu.running_guests(state):
            if time.monotonic() > deadline:
                raise LabError(f"{host.name} did not shut down in time")
            time.sleep(0.3)
        _launch(host, files, state, append, host.memory_mb, keep_disk=True)
        _wait_for_ssh(host.name, state, key, deadline, say)
        return write_inventory(state, qemu.running_guests(state), key)


def _launch(
    host: Host,
    files: ImageFiles,
    state: Path,
    append: str,
    memory_mb: int,
    keep_disk: bool = False,
) -> None:
    accelerator = qemu.host_accelerator(host)
    if accelerator == "tcg":
        qemu.check_version(qemu.find_machine(host).program)
    folder = state / host.name
    if not keep_disk:
        # Left by a guest that ended by itself.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    machine_id = _machine_id(folder)
    for attempts_left in (2, 1, 0):
        launch = qemu.Launch(folder, _free_port(), machine_id, memory_mb, append)
        if not launch.overlay.exists():
            overlay = ["-b", str(files.disk), "-F", "raw", str(launch.overlay)]
            run(["qemu-img", "create", "-q", "-f", "qcow2", *overlay])
        try:
            run(qemu.command_line(host, files, launch, accelerator))
            return
        except LabError as error:
            # Between our choice and QEMU's bind somebody else may have taken the port.
            if "host forwarding" not in str(error) or not attempts_left:
                raise


def check_clock(host: Host, guest: qemu.RunningGuest | None) -> None:
    """Refuse a running guest whose clock is not what was asked for: its figures would mislead."""
    if guest is not None and guest.icount != host.icount:
        found, needed = ("counts instructions", "time")
        if host.icount:
            found, needed = ("goes by time", "instructions")
        raise LabError(
            f"{host.name} is running and its clock {found}, needed: {needed}: "
            f"run `python3 -m lab down {host.name}` first"
        )


def _machine_id(folder: Path) -> str:
    """One for each disk: a guest that starts again from its own is the same machine."""
    kept = folder / "machine-id"
    if not kept.exists():
        kept.write_text(f"{uuid.uuid4()}\n")
    return kept.read_text().strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_ssh(
    name: str, state: Path, key: Path, deadline: float, say: Callable[[str], None]
) -> None:
    started = told = time.monotonic()
    while True:
        guest = qemu.running_guests(state).get(name)
        if guest is None:
            tail = _console_tail(state / name)
            raise GuestEnded(f"{name} has ended before it answered ssh; {tail}")
        if ssh.answers(guest.port, key, timeout=5):
            return
        now = time.monotonic()
        if now > deadline:
            tail = _console_tail(state / name)
            raise LabError(
                f"{name} did not answer ssh in time and is left running "
                f"(`python3 -m lab down {name}` ends it); {tail}"
            )
        if now - told >= PROGRESS_SECONDS:
            told = now
            last = (_last_lines(state / name / "console.log") or ["(nothing on its console yet)"])[
                -1
            ]
            say(f"{name} boots, {now - started:.0f} s: {last}")
        time.sleep(0.3)


def _console_tail(folder: Path) -> str:
    log = folder / "console.log"
    said = f"its console ({log}) ends with: {' | '.join(_last_lines(log)) or '(nothing)'}"
    qemu_said = _last_lines(folder / "qemu.log")
    return f"{said}; QEMU said: {' | '.join(qemu_said)}" if qemu_said else said


def _last_lines(log: Path) -> list[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    # A console is full of control codes for a terminal.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-LAST_LINES:]


def stop(names: Sequence[str], state: Path, say: Callable[[str], None]) -> None:
    """Power off these guests (no names: all) and remove what they wrote."""
    if not state.exists() and not qemu.running_guests(state):
        return
    with locked(state / "lock"):
        running = qemu.running_guests(state)
        leftovers = [path.name for path in state.iterdir() if path.is_dir()]
        for name in names or sorted({*running, *leftovers}):
            if name in running:
                _kill(running[name])
                say(f"{name} is down")
            shutil.rmtree(state / name, ignore_errors=True)
        left = qemu.running_guests(state)
        if left:
            write_inventory(state, left, ssh.private_key())
        else:
            (state / "inventory.yml").unlink(missing_ok=True)


def checkout_states() -> list[Path]:
    """The state folders of this checkout that have something to stop or to remove."""
    build = DEFAULT_STATE.parent
    running = {guest.state for guest in qemu.all_running_guests() if guest.state.parent == build}
    return sorted(running | set(build.glob(f"{DEFAULT_STATE.name}*/")))


def _kill(guest: qemu.RunningGuest) -> None:
    """Its disk is thrown away, so the plug is pulled."""
    try:
        handle = os.pidfd_open(guest.pid)
    except ProcessLookupError:
        return
    try:
        # The handle is of one process for good: what is verified now can't become another one
        # before the signal.
        if qemu.guest_of_process(guest.pid) != guest:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], 10)[0]:
                return
        raise LabError(f"QEMU process {guest.pid} does not end, not even by SIGKILL")
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise LabError(
            f"{guest.name} (process {guest.pid}) belongs to another user: stop it as that user"
        ) from error
    finally:
        os.close(handle)
