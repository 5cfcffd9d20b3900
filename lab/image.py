# SPDX-License-Identifier: GPL-3.0-or-later
"""Guest images: built once, cached by what went into them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lab.apt_sources import Mirror, Source, machine_mirror, render_one_line
from lab.catalogue import COMMON_PACKAGES, Image
from lab.commands import as_root, environment, require, run, run_logged
from lab.errors import LabError
from lab.paths import cache_folder, locked
from lab.setup_machine import FOREIGN_PACKAGES, setup
from lab.ssh import public_key

# Has the kernel run arm64 programs by QEMU (binfmt_misc of the admin guide): magic and mask
# of an ELF header, and the interpreter, opened now (F) for use in a chroot.
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
EMULATE = {
    "arm64": rf"""
cd /proc/sys/fs/binfmt_misc
[ -e register ] || mount -t binfmt_misc binfmt_misc .
cd /proc/sys/fs/binfmt_misc
[ -e qemu-aarch64 ] ||
    printf %s ':qemu-aarch64:M::{_MAGIC}:{_MASK}:/usr/bin/qemu-aarch64-static:F' >register
cd /
"""
}

ROOTFS_SCRIPT = Path(__file__).with_name("rootfs.sh")

# Mounts of its own that nobody else sees. In a chroot whose root is no mount, unshare cannot make
# them private: what is mounted there is then taken away at the end, however that comes.
OWN_MOUNTS = """
if unshare --mount true 2>/dev/null; then exec unshare --mount "$@"; fi
status=0
unshare --mount --propagation unchanged "$@" || status=$?
for each in proc sys; do
    if mountpoint -q "$WORK/rootfs/$each"; then umount "$WORK/rootfs/$each"; fi
done
exit $status
"""


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """What a guest boots from. Never written after it was built."""

    disk: Path
    kernel: Path
    initrd: Path


def image_sources(image: Image, mirror: Mirror) -> list[Source]:
    """The guest's own apt sources."""
    return mirror.sources(image.suite, [image.kernel_suite] if image.kernel_suite else [])


def image_key(image: Image, sources: list[Source], script: str, ssh_public_key: str) -> str:
    """A hash of everything that goes into an image."""
    # The keyring's place on this machine doesn't change what is installed.
    went_in = {
        "image": dataclasses.asdict(image),
        "common": COMMON_PACKAGES,
        "sources": [(source.uri, source.suite, source.components) for source in sources],
        "script": script,
        "ssh": ssh_public_key,
    }
    return hashlib.sha256(json.dumps(went_in, sort_keys=True).encode()).hexdigest()[:16]


def files_in(folder: Path) -> ImageFiles:
    """The files of a finished image."""
    return ImageFiles(folder / "disk.img", folder / "vmlinuz", folder / "initrd")


def ensure_image(image: Image, say: Callable[[str], None], rebuild: bool = False) -> ImageFiles:
    """The cached image, built first where needed."""
    foreign = setup_foreign(image.arch)
    mirror = machine_mirror()
    sources = image_sources(image, mirror)
    key = image_key(image, sources, ROOTFS_SCRIPT.read_text(), public_key())
    images = cache_folder() / "images"
    folder = images / f"{image.name}-{key}"
    if folder.is_dir() and not rebuild:
        return files_in(folder)
    with locked(images / f"{image.name}.lock"):
        # Another builder may have been quicker while we waited for the lock.
        if folder.is_dir() and not rebuild:
            return files_in(folder)
        say(f"building the image of {image.name} ({image.suite}): one to four minutes, once")
        started = time.monotonic()
        _build(image, mirror, sources, folder, say, EMULATE[image.arch] if foreign else "")
        say(f"built the image of {image.name} in {time.monotonic() - started:.0f} s: {folder}")
    return files_in(folder)


def setup_foreign(arch: str) -> bool:
    """Whether the architecture is not this machine's; what its guests need is then installed."""
    if arch not in FOREIGN_PACKAGES or arch == run(["dpkg", "--print-architecture"]).strip():
        return False
    setup(FOREIGN_PACKAGES[arch])
    return True


def _build(
    image: Image,
    mirror: Mirror,
    sources: list[Source],
    folder: Path,
    say: Callable[[str], None],
    before: str,
) -> None:
    require("debootstrap")
    if not Path(mirror.keyring).is_file():
        raise LabError(
            f"the archive's keyring {mirror.keyring} is missing: install debian-archive-keyring"
        )
    work = Path(tempfile.mkdtemp(prefix=f".{image.name}-", dir=folder.parent))
    log = folder.parent / f"{image.name}.log"
    log.write_text("")
    variables = {
        "WORK": str(work),
        "SUITE": image.suite,
        "ARCH": image.arch,
        "NAME": image.name,
        "DISK_SIZE": image.disk_size,
        "MIRROR": mirror.main,
        "KEYRING": mirror.keyring,
        "SOURCES": render_one_line(sources, signed=False),
        "KERNEL": image.kernel,
        "KERNEL_SUITE": image.kernel_suite,
        "PACKAGES": " ".join((*COMMON_PACKAGES, *image.packages)),
        "PUBLIC_KEY": public_key(),
        "OWNER": f"{os.getuid()}:{os.getgid()}",
        "PATH": environment()["PATH"],  # sudo drops it
        "http_proxy": run(["apt-config", "dump", "--format", "%v", "Acquire::http::Proxy"])
        or os.environ.get("http_proxy", ""),
    }
    try:
        script = ["sh", "-euc", before + 'exec sh "$0"', str(ROOTFS_SCRIPT)]
        build = ["sh", "-euc", OWN_MOUNTS, "own-mounts", *script]
        run_logged(as_root(build, variables), log, f"building the image of {image.name}", say)
        # mkdtemp's 0700 stays: the key of root's login and the guest's host keys are inside.
        if folder.exists():
            # Guests that run on the old disk keep it open, so it may go.
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        if work.exists():
            subprocess.run(as_root(["rm", "-rf", "--one-file-system", str(work)]), check=False)
