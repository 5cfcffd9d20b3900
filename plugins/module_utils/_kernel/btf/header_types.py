# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's types from its headers, for kernels without BTF: measured by bcc, written as BTF.

bcc brings a compiler and the flags that a kernel's headers need. It is asked for nothing but
numbers, where each member lies that the object reads; the object itself is the same as ever. The
compiler runs in a process of its own, which takes its memory with it when it ends. The numbers are
kept: until the kernel or its headers change, no load needs the compiler again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import struct
import subprocess
from contextlib import suppress
from typing import Sequence

from ..errors import BtfNotFound
from ..store import Store, write_atomically
from . import archive
from .needed_types import SHAPES, to_btf

# The distribution's bcc is a module of the distribution's Python, whichever runs this
PYTHON = "/usr/bin/python3"
# Not under /usr/local, where PyPI's `bcc` would be, another program by the same name
_BCC = (
    "/usr/lib/python3*/dist-packages/bcc/__init__.py",
    "/usr/lib*/python3*/site-packages/bcc/__init__.py",
)
_KHEADERS = "/sys/kernel/kheaders.tar.xz"
KEPT = Store().header_types_path
_SECONDS = 600

# mov64 r0, imm
_RETURN_NUMBER = 0xB7


_INCLUDES = """#include <linux/skbuff.h>
#include <net/net_namespace.h>
#include <net/netfilter/nf_conntrack.h>
"""

# Reads {text, functions} as JSON and prints the code of each function as JSON
_COMPILE = """
import json, sys
import bcc
asked = json.load(sys.stdin)
module = bcc.BPF(text=asked["text"].encode(), cflags=["-w"])
print(json.dumps([module.dump_func(name.encode()).hex() for name in asked["functions"]]))
"""


def bcc_path() -> str | None:
    """Where the distribution's bcc lies, None if it is not installed."""
    found = [path for pattern in _BCC for path in glob.glob(pattern)]
    return found[0] if found else None


def headers_path() -> str | None:
    """Where the running kernel's headers are, None if they are not there."""
    build = f"/lib/modules/{platform.release()}/build"
    if os.path.isdir(f"{build}/include"):
        return build
    return _KHEADERS if os.path.exists(_KHEADERS) else None


def questions() -> dict[str, str]:
    """C functions to their bodies, each of which returns one number: the size of a shape, or where
    a member begins, -1 if this kernel is built without it.
    """
    asked = {}
    for key, shape in SHAPES.items():
        asked[f"size_{key}"] = f"return sizeof({shape.c});"
        for name, _type, option in shape.members:
            body = f"return __builtin_offsetof({shape.c}, {name});"
            if option:
                body = f"\n#ifdef {option}\n{body}\n#else\nreturn -1;\n#endif\n"
            asked[f"at_{key}_{name}"] = body
    return asked


def returned_number(code: bytes) -> int:
    """What a BPF function returns that does nothing else; ValueError if it does more."""
    if len(code) != 16 or code[0] != _RETURN_NUMBER or code[1] != 0:
        raise ValueError(f"no function that returns a number ({code.hex()})")
    return int(struct.unpack_from("=i", code, 4)[0])


def kept(path: str = KEPT) -> bytes | None:
    """BTF of the numbers that an earlier load measured, None if they are of another kernel or other
    headers, or answers to other questions. Headers that have gone since are not missed.
    """
    try:
        with open(path, "rb") as stream:
            found = json.load(stream)
        if found["key"] != _key() or _headers_stamp() not in (None, found["headers"]):
            return None
        return to_btf({name: found["numbers"][name] for name in questions()})
    except (OSError, ValueError, LookupError, TypeError, struct.error):
        return None


def of_running(path: str = KEPT) -> bytes:
    """BTF of the running kernel, kept or else measured, and kept then; raises BtfNotFound."""
    content = kept(path)
    if content is None:
        numbers = _measure()
        content = to_btf(numbers)
        found = {"key": _key(), "headers": _headers_stamp(), "numbers": numbers}
        # Where it cannot be kept, the next load measures again, which is no reason to refuse this
        with suppress(OSError):
            write_atomically(path, json.dumps(found, indent=1).encode() + b"\n")
    return content


def _key() -> list[str]:
    """The build of the kernel, and the digest of what is asked of its headers."""
    asked = hashlib.sha256(_program().encode()).hexdigest()
    return [archive.running().member, asked]


def _headers_stamp() -> str | None:
    """What tells these headers from others of the same kernel's name; None without any."""
    path = headers_path()
    if path is None:
        return None
    try:
        made = os.stat(f"{path}/include/generated/autoconf.h").st_mtime_ns
    except OSError:
        made = 0  # the kernel's own, in a file
    return f"{os.path.realpath(path)} {made}"


def _program() -> str:
    return _INCLUDES + "".join(
        f"int {name}(void *ctx)\n{{{body}}}\n" for name, body in questions().items()
    )


def _measure() -> dict[str, int]:
    asked = list(questions())
    code = _compile(_program(), asked)
    try:
        return {name: returned_number(bytes.fromhex(part)) for name, part in zip(asked, code)}
    except ValueError as exc:
        raise BtfNotFound(
            f"bcc has compiled something else than it was asked for ({exc}): give a BTF file of "
            "this kernel with btf_path"
        ) from None


def _compile(text: str, functions: Sequence[str]) -> list[str]:
    try:
        done = subprocess.run(
            [PYTHON, "-I", "-c", _COMPILE],
            input=json.dumps({"text": text, "functions": functions}),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _not_compiled(str(exc)) from None
    if done.returncode != 0:
        raise _not_compiled(first_error(done.stderr))
    code: list[str] = json.loads(done.stdout.splitlines()[-1])
    return code


def first_error(text: str) -> str:
    """The line of a compiler's or Python's messages that says the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "error:" in line:
            return line
    return lines[-1] if lines else "no message"


def _not_compiled(why: str) -> BtfNotFound:
    return BtfNotFound(
        f"bcc cannot read the headers of kernel {platform.release()} ({why}): "
        "install the headers of this very kernel, or give a BTF file with btf_path"
    )
