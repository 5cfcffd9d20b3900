# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the house: lower rooms import no higher ones, and what reads never reaches what loads.

A room is a folder; its sub-folders belong to it unless they are rooms themselves.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

_UTILS, _CONTROL, _AGENT = "plugins/module_utils", "plugins/plugin_utils", "agent/btfleet"
_KERNEL = f"{_UTILS}/_kernel"

# From the lowest floor up. Rooms on one floor know nothing of each other.
FLOORS = (
    (_KERNEL,),
    (f"{_KERNEL}/bpf",),
    (f"{_KERNEL}/btf",),
    (f"{_KERNEL}/conntrack", f"{_KERNEL}/host"),
    (f"{_KERNEL}/backends",),
    (f"{_KERNEL}/loader",),
    (f"{_UTILS}/_config",),
    (f"{_UTILS}/_host",),
    (f"{_UTILS}/_publisher", f"{_UTILS}/_release"),
    (f"{_UTILS}/_daemons",),
    (f"{_UTILS}/_compliance", f"{_UTILS}/_rollout"),
    (
        f"{_CONTROL}/_compliance",
        f"{_CONTROL}/_fleet",
        f"{_CONTROL}/_release",
        f"{_CONTROL}/_rollout",
    ),
    (f"{_CONTROL}/_sending",),
    ("plugins/action", "plugins/filter", "plugins/inventory", "plugins/modules"),
    (f"{_AGENT}/config",),
    (f"{_AGENT}/agent",),
    (f"{_AGENT}/common",),
    (f"{_AGENT}/poller",),
    (f"{_AGENT}/service",),
    (_AGENT,),
)

# What only reads: files, and all files of folders
READERS = (
    f"{_AGENT}/agent_status.py",
    f"{_AGENT}/conntrack_command.py",
    f"{_AGENT}/poller",
    f"{_AGENT}/status_command.py",
    f"{_KERNEL}/conntrack",
    f"{_UTILS}/_config/status.py",
)
# What it never reaches, by whatever way: these rooms and files
LOADING = (f"{_KERNEL}/backends", f"{_KERNEL}/bpf/libbpf.py", f"{_KERNEL}/loader")
# but for what only reads in them
READING = (
    f"{_KERNEL}/backends/held_links.py",
    f"{_KERNEL}/backends/netlink/pulse.py",
    f"{_KERNEL}/loader/access.py",
    f"{_KERNEL}/loader/lock.py",
    f"{_KERNEL}/loader/misses.py",
    f"{_KERNEL}/loader/reconciled.py",
    f"{_KERNEL}/loader/state.py",
    f"{_KERNEL}/loader/telemetry.py",
)

# Names that packages of the checkout are imported by: the wheel has two rooms of the collection
_NAMES = (
    ("ansible_collections.btfleet.conntrack.", ""),
    ("btfleet._kernel.", f"{_KERNEL}/"),
    ("btfleet._config.", f"{_UTILS}/_config/"),
    ("btfleet.", f"{_AGENT}/"),
)

_FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(path: str) -> str | None:
    """The room that a file is in, None if no room is known for it."""
    for parent in PurePosixPath(path).parents:
        if str(parent) in _FLOOR_OF:
            return str(parent)
    return None


def imports_of(path: str, source: str) -> Iterator[str]:
    """What a file may import of the checkout: paths without their suffix, a package or a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            bases = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            bases = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, name in bases:
            folder = _folder(path, base)
            if folder is not None:
                yield folder
                if name:
                    yield f"{folder}/{name}"


def _folder(path: str, dotted: str) -> str | None:
    name = dotted.lstrip(".")
    level = len(dotted) - len(name)
    if level:
        return str(PurePosixPath(path).parents[level - 1].joinpath(*name.split(".")))
    for prefix, folder in _NAMES:
        if f"{name}.".startswith(prefix):
            rest = f"{name}."[len(prefix) :].rstrip(".")
            return (folder + rest.replace(".", "/")).rstrip("/")
    return None


def read_imports(root: Path) -> dict[str, set[str]]:
    """Each file of collection and agent, and the files among them that it imports."""
    files = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for top in ("plugins", "agent")
        for path in (root / top).rglob("*.py")  # which does not follow the links in agent/
    }
    return {
        path: {f"{found}.py" for found in imports_of(path, source)} & files.keys()
        for path, source in files.items()
    }


def problems(imports: Mapping[str, set[str]]) -> Iterator[str]:
    """What is wrong with the house, a line each."""
    for path in sorted(imports):
        room = room_of(path)
        if room is None:
            yield f"{path} is in no room: name its folder in FLOORS of tools/check_house.py"
            continue
        for target in sorted(imports[path]):
            other = room_of(target)
            if other in (None, room):
                continue
            if _FLOOR_OF[other] >= _FLOOR_OF[room]:
                yield f"{path} imports {target}, but {other} is not below {room}"
    for path in sorted(imports):
        if _is_in(path, READERS):
            yield from _ways_to_loading(imports, path)


def _is_in(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _ways_to_loading(imports: Mapping[str, set[str]], reader: str) -> Iterator[str]:
    """The shortest way from a reader to what loads."""
    ways, seen = [[reader]], {reader}
    while ways:
        way = ways.pop(0)
        for target in sorted(imports.get(way[-1], set()) - seen):
            if _is_in(target, LOADING) and target not in READING:
                line = " -> ".join([*way, target])
                yield f"{reader} only reads, but it reaches what loads: {line}"
                return
            seen.add(target)
            ways.append([*way, target])


def main() -> int:
    """Prints what is wrong; its exit code says whether anything is."""
    found = list(problems(read_imports(Path())))
    for line in found:
        print(f"house: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
