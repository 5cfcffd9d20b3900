# SPDX-License-Identifier: GPL-3.0-or-later
"""Generates the Python modules of the protos, with types: python tools/protos.py PROTOS OUT."""

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


def _below(protos: Path) -> list[Path]:
    return [path.relative_to(protos) for path in protos.rglob("*.proto")]


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]), Path(sys.argv[2])))
