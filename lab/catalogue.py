# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts that the lab can boot, as data. A new one is a new row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lab.errors import LabError

# What every guest has: a stock host that Ansible can reach, and the tools that tests look with.
COMMON_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "openssh-server",
    "python3",
    "iproute2",
    "procps",
    "nftables",
    "iptables",
    "conntrack",
    "bpftool",
    "initramfs-tools",
)


@dataclass(frozen=True)
class Image:
    """A disk: what is installed. Hosts may share one."""

    name: str
    suite: str
    kernel: str
    packages: tuple[str, ...]  # besides COMMON_PACKAGES
    # e.g. "trixie-backports"; empty: the newest of release, updates and security
    kernel_suite: str = ""
    arch: str = "amd64"
    disk_size: str = "3G"


@dataclass(frozen=True)
class Host:
    """A guest: an image and how it is booted."""

    name: str
    image: Image
    kernel_args: str = ""  # e.g. "lockdown=integrity"
    memory_mb: int = 1024
    cpus: int = 2
    # Its clock counts the instructions of its one processor, 1 ns each, instead of time
    icount: bool = False

    def counting(self) -> Host:
        """Return this host with icount; QEMU counts the instructions of one processor."""
        return replace(self, icount=True, cpus=1)


BOOKWORM = Image("debian12", "bookworm", kernel="linux-image-cloud-amd64", packages=("libbpf1",))
TRIXIE = Image("debian13", "trixie", kernel="linux-image-cloud-amd64", packages=("libbpf1",))

# Older and newer kernels than those releases have of their own, under their user space
BOOKWORM_K510 = replace(BOOKWORM, name="debian12-k510", kernel_suite="bullseye")
TRIXIE_K73 = replace(TRIXIE, name="debian13-k73", kernel_suite="trixie-backports")

BOOKWORM_ARM64 = replace(
    BOOKWORM, name="debian12-arm64", kernel="linux-image-cloud-arm64", arch="arm64"
)

HOSTS = {
    host.name: host
    for host in (
        Host("debian12", BOOKWORM),
        Host("debian13", TRIXIE),
        Host("debian13-b", TRIXIE),
        Host("debian12-k510", BOOKWORM_K510),
        Host("debian13-k73", TRIXIE_K73),
        Host("debian12-arm64", BOOKWORM_ARM64),
    )
}


def find_host(name: str) -> Host:
    """The row of that name."""
    if name not in HOSTS:
        raise LabError(f"no host is called {name}: choose from {', '.join(HOSTS)}")
    return HOSTS[name]
