# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts off imports that libraries make for what the agent never does.

gRPC brings asyncio and its own half for it, protobuf its implementation in Python beside the one in
C: 3 MB of the memory of every host. They are there all the same: whoever uses one of them gets it
loaded then (importlib.util.LazyLoader).
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Collection, Sequence

UNUSED = ("asyncio", "grpc.aio", "google.protobuf.internal.python_message")


class _LazyFinder(MetaPathFinder):
    """Finds these modules as the path does, but has them executed at their first use."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def put_off(names: Collection[str] = UNUSED) -> None:
    """To be called before gRPC is imported; what is imported already stays."""
    sys.meta_path.insert(0, _LazyFinder(names))
