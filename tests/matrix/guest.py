# SPDX-License-Identifier: GPL-3.0-or-later
"""A guest of the lab, and Ansible run against it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab import guests, qemu, ssh
from lab.catalogue import find_host
from lab.image import ensure_image
from lab.paths import CHECKOUT
from tests.matrix.rows import Row
from tools.build_btf_archive import modules_of

STATE = CHECKOUT / "build" / "lab-matrix"
TESTS = "/root/btfleet-tests"

_PACKAGES = "dpkg-query --show --showformat='${Package}\\n' | sort"

# Early, so that the tracker's own unit meets the host as it is meant to be. But after networkd: it
# has BPF programs of its own where it finds BTF, and a reboot would take them away.
_UNIT = """[Unit]
After=local-fs.target systemd-modules-load.service sys-fs-bpf.mount systemd-networkd.service
Before=btfleet-conntracker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /etc/lab-variant

[Install]
WantedBy=multi-user.target
"""


class Done(NamedTuple):
    """How a command ended, and all that it said."""

    status: int
    output: str


class Guest:
    """The only guest of the matrix. All that is run in it is logged."""

    def __init__(self, row: Row, log: Path) -> None:
        host = find_host(row.host)
        self.host = dataclasses.replace(host, name=row.name)
        self.variant = row.variant
        self.new_kernel = row.new_kernel
        self.log = log

    def boot(self) -> None:
        """Starts it."""
        self.inventory = guests.start(
            [self.host], STATE, self._say, self.variant.kernel_args, timeout=600
        )
        self.command = ssh.command_line(
            qemu.running_guests(STATE)[self.host.name].port, ssh.private_key()
        )

    def stop(self) -> None:
        """Throws it away."""
        guests.stop([self.host.name], STATE, self._say)

    def prepare(self) -> None:
        """Brings the test programs, makes the variant, and records the host as it is."""
        tests = subprocess.run(
            ["tar", "-cz", "--exclude=__pycache__", "-C", CHECKOUT / "tests/integration", "."],
            capture_output=True,
            check=True,
        ).stdout
        self.must(f"mkdir -p {TESTS}; tar -xzC {TESTS}", tests)
        for there, here in self.variant.files.items():
            self.must(f"cat >{there}", here.read_bytes())
        if self.variant.script:
            self.must("cat >/etc/lab-variant", self.variant.script.encode())
            self.must("cat >/etc/systemd/system/lab-variant.service", _UNIT.encode())
            self.must("systemctl enable --now lab-variant.service")
        if self.new_kernel:
            self._bring_modules(self.new_kernel)
        self.must(f"cd {TESTS}; {_PACKAGES} >packages")
        self.must(f"cd {TESTS}; python3 -m guest.traces record before.json")

    def purge_new_packages(self) -> None:
        """Those that have come since: an uninstallation leaves them to the operator."""
        new = f"{_PACKAGES} | comm -13 packages -"
        purge = "DEBIAN_FRONTEND=noninteractive xargs -r apt-get -qy purge"
        self.must(f"cd {TESTS}; {new} | {purge}")

    def _bring_modules(self, name: str) -> None:
        """Those of the kernel of a host of the lab."""
        disk = ensure_image(find_host(name).image, self._say).disk
        with tempfile.TemporaryDirectory() as folder:
            modules_of(disk, Path(folder))
            packed = subprocess.run(
                ["tar", "-cz", "-C", f"{folder}/usr/lib", "modules"],
                capture_output=True,
                check=True,
            ).stdout
        self.must("tar -xz --keep-directory-symlink -C /usr/lib", packed)

    def run(self, command: str, given: bytes = b"", timeout: float = 1800) -> Done:
        """A shell command in the guest."""
        return self._run([*self.command, command], given, timeout)

    def must(self, command: str, given: bytes = b"") -> str:
        """The same where only success will do."""
        done = self.run(command, given)
        if done.status != 0:
            last = (done.output.strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"`{command}` ended with {done.status}: {last}")
        return done.output

    def reboot(self) -> None:
        """Reboots, and waits until the boot is over."""
        boot = self.must("cat /proc/sys/kernel/random/boot_id")
        self.run("systemctl reboot")
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            done = self.run("cat /proc/sys/kernel/random/boot_id")
            if done.status == 0 and done.output != boot:
                # 1 is what a boot with a failed unit ends with; its tracker says how it is
                self.run("systemctl is-system-running --wait", timeout=600)
                return
            time.sleep(2)
        raise RuntimeError("the guest did not come back")

    def change_kernel(self, name: str) -> None:
        """Reboots into the kernel of a host of the lab."""
        image = find_host(name).image
        self.run("systemctl poweroff")
        self.inventory = guests.start_again(
            self.host, STATE, self._say, image, self.variant.kernel_args
        )
        self.command = ssh.command_line(
            qemu.running_guests(STATE)[self.host.name].port, ssh.private_key()
        )
        self.run("systemctl is-system-running --wait", timeout=600)

    def compliance(self) -> dict[str, Any]:
        """The controls of the module compliance_info, by id."""
        done = self._run(
            [
                str(Path(sys.executable).with_name("ansible")),
                f"--inventory={self.inventory}",
                "--module-name=btfleet.conntrack.compliance_info",
                "all",
            ],
            b"",
            600,
            {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        )
        result, _end = json.JSONDecoder().raw_decode(done.output.partition("=> ")[2])
        return {one["id"]: one for one in result["controls"]}

    def playbook(self, name: str, variables: Mapping[str, object]) -> Done:
        """One of the collection's playbooks."""
        return self._run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                f"--inventory={self.inventory}",
                f"--extra-vars={json.dumps(dict(variables))}",
                f"btfleet.conntrack.{name}",
            ],
            b"",
            1800,
        )

    def _run(
        self,
        command: Sequence[str],
        given: bytes,
        timeout: float,
        settings: Mapping[str, str] | None = None,
    ) -> Done:
        # Ansible has its colours and its width from the environment
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", **(settings or {})}
        try:
            done = subprocess.run(
                command,
                input=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=CHECKOUT,
                env=environment,
                timeout=timeout,
            )
            result = Done(done.returncode, done.stdout.decode(errors="replace"))
        except subprocess.TimeoutExpired as error:
            result = Done(124, (error.stdout or b"").decode(errors="replace"))
        shown = command[-1] if command[0] == "ssh" else " ".join(command)
        self._say(f"$ {shown}\n{result.output}(ended with {result.status})")
        return result

    def _say(self, text: str) -> None:
        with self.log.open("a") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
