# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the archive of minimized BTF from installed kernels: of this machine, of an unpacked
system, or of an ext4 disk image. What an archive has already stays in it.

A kernel's own types and those of its module nf_conntrack become one BTF, which bpftool then cuts
down to what the object reads.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from btfleet._kernel import os_release
from btfleet._kernel.btf.archive import Kernel

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")


class ArchiveError(Exception):
    """One line for a person."""


# --- BTF ------------------------------------------------------------------------------------------


def _parts(btf: bytes) -> tuple[bytes, bytes]:
    """Types and strings."""
    magic, _version, _flags, length, type_at, type_size, text_at, text_size = _HEADER.unpack_from(
        btf
    )
    if magic != _MAGIC:
        raise ArchiveError("found no little-endian BTF")
    types = btf[length + type_at : length + type_at + type_size]
    return types, btf[length + text_at : length + text_at + text_size]


def merge(kernel: bytes, module: bytes) -> bytes:
    """One BTF of a kernel's and a module's, whose numbers go on where the kernel's end."""
    (types, text), (more_types, more_text) = _parts(kernel), _parts(module)
    types, text = types + more_types, text + more_text
    header = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(text))
    return header + types + text


def section(elf: bytes, name: bytes) -> bytes | None:
    """A section of a 64-bit little-endian ELF file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ArchiveError("found no 64-bit little-endian ELF file")
    at = struct.unpack_from("<Q", elf, 40)[0]
    size, number, names = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, at + size * index) for index in range(number)]
    text = headers[names][4]
    for header in headers:
        start = text + header[0]
        if elf[start : start + len(name) + 1] == name + b"\0":
            return elf[header[4] : header[4] + header[5]]
    return None


# --- kernels --------------------------------------------------------------------------------------


def unpack(packed: bytes) -> bytes:
    """By what it begins with; what follows the end of it does not matter."""
    if packed[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(packed)
    if packed[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(packed)
    if packed[:4] == b"\x02\x21\x4c\x18":
        return b"".join(_lz4_blocks(packed))
    if packed[:4] == b"\x28\xb5\x2f\xfd":
        done = subprocess.run(
            ["zstd", "-dcq"],
            input=packed,
            capture_output=True,
            check=False,
        )
        # The size behind the frame, which the kernel's build puts there, is no frame
        if done.stdout:
            return done.stdout
        raise ArchiveError(f"zstd: {done.stderr.decode(errors='replace').strip()}")
    return packed


def _lz4_blocks(packed: bytes) -> Iterator[bytes]:
    """The legacy frame: blocks of up to 8 MiB. The library comes with systemd, its command not."""
    library = ctypes.CDLL("liblz4.so.1")
    at, block = 4, ctypes.create_string_buffer(8 << 20)
    while at + 4 < len(packed):
        size = int.from_bytes(packed[at : at + 4], "little")
        piece = packed[at + 4 : at + 4 + size]
        # The image's size stands behind the last block
        if len(piece) < size:
            return
        written = library.LZ4_decompress_safe(piece, block, size, len(block))
        if written < 0:
            raise ArchiveError("the kernel image's lz4 is damaged")
        yield block.raw[:written]
        at += 4 + size


def version_of(image: bytes) -> tuple[str, str]:
    """`uname -r` and `uname -v` of an x86 kernel image."""
    if image[0x202:0x206] != b"HdrS":
        raise ArchiveError("found no x86 kernel image")
    at = struct.unpack_from("<H", image, 0x20E)[0] + 0x200
    text = image[at : image.index(b"\0", at)].decode("ascii", "replace")
    return text.split()[0], text[text.index("#") :]


def vmlinux_of(image: bytes) -> bytes:
    """The ELF file inside of an x86 kernel image."""
    start = (image[0x1F1] or 4) * 512 + 512
    offset, size = struct.unpack_from("<II", image, 0x248)
    return unpack(image[start + offset : start + offset + size])


def kernels_in(root: Path) -> Iterator[tuple[Kernel, bytes]]:
    """Each installed kernel with its BTF, the module's merged in."""
    system = _system(root)
    for path in sorted((root / "boot").glob("vmlinuz-*")):
        image = path.read_bytes()
        release, build = version_of(image)
        btf = section(vmlinux_of(image), b".BTF")
        if btf is None:
            print(f"btf-archive: {path} was built without BTF, passed over", file=sys.stderr)
            continue
        module = _module(root, release)
        more = section(module, b".BTF") if module else None
        kernel = Kernel(
            system.get("ID", "unknown"),
            system.get("VERSION_ID", "unknown"),
            "x86_64",
            release,
            build,
        )
        yield kernel, merge(btf, more) if more else btf


def _system(root: Path) -> dict[str, str]:
    for path in (root / "etc/os-release", root / "usr/lib/os-release"):
        if path.is_file():
            return os_release.parse(path.read_text())
    return {}


def _module(root: Path, release: str) -> bytes | None:
    for top in ("usr/lib/modules", "lib/modules"):
        folder = root / top / release / "kernel/net/netfilter"
        for path in sorted(folder.glob("nf_conntrack.ko*")):
            return unpack(path.read_bytes())
    return None


def modules_of(image: Path, to: Path) -> None:
    """Copies all modules of an image's kernels to `to`/usr/lib/modules."""
    (to / "usr/lib").mkdir(parents=True, exist_ok=True)
    _debugfs(image, f"rdump /usr/lib/modules {to / 'usr/lib'}")


def extract(image: Path, to: Path) -> None:
    """The parts of an ext4 disk image that are needed."""
    listing = _debugfs(image, "ls -p /usr/lib/modules")
    names = [line.split("/")[5] for line in listing.splitlines() if line.count("/") >= 6]
    wanted = ["/boot", "/usr/lib/os-release"]
    wanted += [
        f"/usr/lib/modules/{name}/kernel/net/netfilter" for name in names if name[:1].isdigit()
    ]
    for path in wanted:
        folder = (to / path[1:]).parent
        folder.mkdir(parents=True, exist_ok=True)
        _debugfs(image, f"rdump {path} {folder}")


def _debugfs(image: Path, request: str) -> str:
    done = subprocess.run(
        ["debugfs", "-R", request, str(image)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ArchiveError(f"debugfs cannot read {image}: {done.stderr.strip()}")
    return done.stdout


def minimize(btf: bytes, objects: Sequence[Path], folder: Path) -> bytes:
    """What of it the objects read."""
    whole, small = folder / "whole.btf", folder / "small.btf"
    whole.write_bytes(btf)
    done = subprocess.run(
        ["bpftool", "gen", "min_core_btf", whole, small, *objects],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ArchiveError(f"bpftool gen min_core_btf: {last}")
    return small.read_bytes()


# --- the archive ----------------------------------------------------------------------------------


def read_members(path: Path) -> dict[str, bytes]:
    """What an archive has; nothing if there is none yet."""
    if not path.exists():
        return {}
    found = {}
    with tarfile.open(path) as archive:
        for one in archive.getmembers():
            stream = archive.extractfile(one)
            if stream:
                found[one.name] = stream.read()
    return found


def write_members(members: dict[str, bytes], path: Path) -> None:
    """The same members give the same bytes."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name in sorted(members):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(members[name]), 0o644
            archive.addfile(about, io.BytesIO(members[name]))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_bytes(raw.getvalue())
    draft.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="build_btf_archive.py", description=__doc__)
    parser.add_argument("roots", nargs="+", type=Path, help="folders of systems, or disk images")
    parser.add_argument("--object", required=True, type=Path, help="the BPF object")
    parser.add_argument("--out", required=True, type=Path, help="the archive")
    options = parser.parse_args(arguments)
    members = read_members(options.out)
    try:
        for root in options.roots:
            with tempfile.TemporaryDirectory(prefix="btfleet-btf-") as name:
                folder = Path(name)
                if root.is_file():
                    extract(root, folder)
                for kernel, btf in kernels_in(folder if root.is_file() else root):
                    members[kernel.member] = minimize(btf, [options.object], folder)
                    print(
                        f"btf-archive: {kernel.member}: {len(btf)} bytes, "
                        f"of them needed: {len(members[kernel.member])}"
                    )
    except (ArchiveError, OSError, lzma.LZMAError, zlib.error, struct.error) as error:
        print(f"btf-archive: {root}: {error}", file=sys.stderr)
        return 1
    write_members(members, options.out)
    print(f"btf-archive: {options.out}: {len(members)} kernels, {options.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
