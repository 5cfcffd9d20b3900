# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates what is made of the protos: python tools/protos.py PROTOS OUT DESCRIPTION.

OUT gets Python modules with types; the file DESCRIPTION gets the messages of the config service as
a FileDescriptorSet, from which a control node makes classes at run time.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc


def generate(protos: Path, out: Path) -> int:
    """protoc's exit code; the modules lie below `out` as the protos lie below `protos`."""
    sources = sorted(str(path) for path in protos.rglob("*.proto"))
    common = str(files("grpc_tools") / "_proto")
    kinds = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    code: int = protoc.main(["protoc", f"-I{protos}", f"-I{common}", *kinds, *sources])
    if code == 0:
        for folder in {(out / source).parent for source in _below(protos)}:
            for package in (folder, folder.parent):
                (package / "__init__.py").touch()
    return code


def describe(protos: Path, description: Path) -> int:
    """protoc's exit code; the file is replaced as a whole."""
    source = protos / "btfleet" / "config" / "v1" / "config.proto"
    common = str(files("grpc_tools") / "_proto")
    new = description.with_name(f".{description.name}.new")
    words = [f"-I{protos}", f"-I{common}", "--include_imports", f"--descriptor_set_out={new}"]
    code: int = protoc.main(["protoc", *words, str(source)])
    if code == 0:
        new.replace(description)
    return code


def _below(protos: Path) -> list[Path]:
    return [path.relative_to(protos) for path in protos.rglob("*.proto")]


if __name__ == "__main__":
    PROTOS, OUT, DESCRIPTION = map(Path, sys.argv[1:])
    sys.exit(generate(PROTOS, OUT) or describe(PROTOS, DESCRIPTION))
