# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's ssh key, and talking ssh to a guest."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from lab.commands import run
from lab.paths import cache_folder, locked

# Guests come and go: nothing of them may end up in the user's known_hosts, and nothing in the
# user's ssh configuration may change how a guest is reached. A guest that refuses the key must not
# make anybody wait for a password (BatchMode). A forwarded port accepts before the guest listens,
# hence the timeout.
OPTIONS = (
    "-F",
    "none",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "LogLevel=ERROR",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "ServerAliveInterval=15",
)


def private_key() -> Path:
    """The key pair of this user's lab, made at first use."""
    folder = cache_folder() / "ssh"
    key = folder / "id_ed25519"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder / "lock"):
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "btfleet-lab", "-f", str(key)]
            )
    return key


def public_key() -> str:
    """What a guest's authorized_keys has."""
    return private_key().with_suffix(".pub").read_text().strip()


def command_line(port: int, key: Path) -> list[str]:
    """ssh to the guest behind that port; append a command or nothing."""
    return ["ssh", *OPTIONS, "-i", str(key), "-p", str(port), "root@127.0.0.1"]


def answers(port: int, key: Path, timeout: float) -> bool:
    """Whether a command runs in the guest. The banner comes first: cheap for both sides."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            if not connection.recv(4).startswith(b"SSH-"):
                return False
    except OSError:
        return False
    try:
        done = subprocess.run(
            [*command_line(port, key), "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout + 20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
