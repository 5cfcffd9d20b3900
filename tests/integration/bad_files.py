# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the files that a host has to refuse, out of a good object, and views of poorer hosts.

    python3 tests/integration/bad_files.py OBJECT FOLDER

Run on the control node; needs clang, as the object does.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

SECTION = struct.Struct("<IIQQQQIIQQ")
# r0 = r9: at a program's start nobody has written r9
READS_UNWRITTEN = bytes([0xBF, 0x90, 0, 0, 0, 0, 0, 0])
ENTRIES = ("fentry/__nf_conntrack_hash_insert", "kprobe/__nf_conntrack_hash_insert")

# What libbpf 0.4 exports out of the functions that the loader uses.
OLD_FUNCTIONS = """
libbpf_set_print bpf_object__open_mem bpf_object__load bpf_object__close
bpf_object__find_map_by_name bpf_object__find_program_by_name bpf_map__fd bpf_map__reuse_fd
bpf_map__set_max_entries bpf_map__set_initial_value bpf_program__set_autoload bpf_program__fd
bpf_program__attach bpf_link__fd bpf_link__disconnect bpf_link__destroy
btf__find_by_name_kind btf__type_by_id btf__name_by_offset btf__parse btf__free
"""


def section(content: bytes, wanted: str) -> tuple[int, int]:
    """Offset and size of an ELF section."""
    (offset,) = struct.unpack_from("<Q", content, 40)
    count, names_index = struct.unpack_from("<HH", content, 60)
    headers = [SECTION.unpack_from(content, offset + i * SECTION.size) for i in range(count)]
    names = headers[names_index][4]
    for header in headers:
        start = names + header[0]
        if content[start : content.index(b"\0", start)].decode() == wanted:
            return header[4], header[5]
    raise LookupError(f"the object has no section {wanted}")


def refused_by_verifier(content: bytes) -> bytes:
    """The object, with insert programs that read a register which nobody has written."""
    patched = bytearray(content)
    for name in ENTRIES:
        offset, _size = section(content, name)
        patched[offset : offset + len(READS_UNWRITTEN)] = READS_UNWRITTEN
    return bytes(patched)


def with_broken_btf(content: bytes) -> bytes:
    """A sound ELF file whose BTF has a wrong magic number."""
    patched = bytearray(content)
    offset, _size = section(content, ".BTF")
    patched[offset : offset + 2] = b"\0\0"
    return bytes(patched)


def with_broken_header(content: bytes) -> bytes:
    """Section headers that lie beyond the end of the file."""
    return content[:40] + struct.pack("<Q", 1 << 40) + content[48:]


def btf_of_nothing() -> bytes:
    """Valid BTF with one type, an int."""
    strings = b"\0int\0"
    int_type = struct.pack("<IIII", 1, 1 << 24, 4, 32)
    header = struct.pack(
        "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(int_type), len(int_type), len(strings)
    )
    return header + int_type + strings


def old_library(target: Path) -> None:
    """A libbpf.so.1 that lacks what later versions brought."""
    source = "".join(f"void {name}(void) {{}}\n" for name in OLD_FUNCTIONS.split())
    command = ["clang", "-shared", "-nostdlib", "-fPIC", "-Wl,-soname,libbpf.so.1"]
    subprocess.run(
        [*command, "-x", "c", "-", "-o", str(target)], input=source, text=True, check=True
    )


# Pythons in a mount namespace of their own: all but they keep what is hidden there.
PYTHON = """\
#!/bin/sh
exec unshare --mount sh -c '{hide} && exec python3 "$@"' - "$@"
"""
LIBRARY = "/usr/lib/x86_64-linux-gnu/libbpf.so.1"
HIDE = {
    "without-bpffs": "umount /sys/fs/bpf",
    "without-libbpf": f"mount --bind /dev/null {LIBRARY}",
    "with-old-libbpf": f"mount --bind /root/btfleet-tests/libbpf-0.4.so {LIBRARY}",
    "without-modules": "mount -t tmpfs none /lib/modules/$(uname -r)",
}

NO_OBJECT = {"object_sha256": "0" * 64}
SPECS: dict[str, object] = {
    "unknown-setting": {**NO_OBJECT, "tcpv7_enabled": True},
    "out-of-range": {**NO_OBJECT, "closed_entries": 16777217},
    "no-object": NO_OBJECT,
    "no-spec": [],
}


def write_host_files(folder: Path) -> None:
    """What has to lie on the host itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "int.btf").write_bytes(btf_of_nothing())
    (folder / "text.btf").write_bytes(b"no BTF at all\n")
    old_library(folder / "libbpf-0.4.so")
    for name, spec in SPECS.items():
        (folder / f"{name}.json").write_text(json.dumps(spec))
    for name, hide in HIDE.items():
        path = folder / f"python-{name}"
        path.write_text(PYTHON.format(hide=hide))
        path.chmod(0o755)


def main() -> int:
    """The exit code."""
    good, folder = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    objects = {
        "empty.bpf.o": b"",
        "text.bpf.o": b"no object at all\n",
        "truncated.bpf.o": good[: len(good) // 2],
        "corrupt.bpf.o": with_broken_header(good),
        "broken-btf.bpf.o": with_broken_btf(good),
        "refused.bpf.o": refused_by_verifier(good),
    }
    for name, content in objects.items():
        (folder / name).write_bytes(content)
    write_host_files(folder / "host")
    return 0


if __name__ == "__main__":
    sys.exit(main())
