# SPDX-License-Identifier: GPL-3.0-or-later
"""The tracker as bpftool sees it: compared with the record, or printed for a later comparison.

python3 -m guest.kernel_view verify     exit code 1 and one line for what is not as recorded
python3 -m guest.kernel_view print      spec file, objects, pins and programs, as JSON
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from .commands import PINS, SPEC_FILE, GuestError, bpftool, run, status

OBJECTS = Path("/var/lib/btfleet/objects")
UNIT = "btfleet-conntracker.service"
LINK_TYPES = {"fentry": "tracing", "fexit": "tracing", "iter": "iter"}
PROGRAM_TYPES = {"fentry": "tracing", "fexit": "tracing", "iter": "tracing"}
ITERATORS = {
    "entries_live": "entries",
    "entries_closed": "entries",
}
OURS = ("fentry_", "fexit_", "kprobe_", "kretprobe_", "iter_")
MAP_TYPES = {
    "conntrack_live": "hash",
    "conntrack_closed": "lru_hash",
    "counters": "percpu_array",
    "netns_ended": "lru_hash",
}


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise GuestError(f"{what} is {found!r}, needed: {wanted!r}")


def verify(spec: dict[str, Any] | None = None) -> str:
    """Every pin, link, program and map is there with the recorded id; the line for a person.

    What is in force has to be `spec`, by default the one in the spec file.
    """
    said = status()
    record = said["record"]
    if record is None:
        raise GuestError("no tracker is loaded")
    _expect("healthy", said["healthy"], True)
    _expect("the spec in force", record["spec"], spec or json.loads(SPEC_FILE.read_text()))
    pins = sorted(path.name for path in PINS.iterdir())
    follows = ["follower"] if record["tier"] == "netlink" else []
    _expect("what is pinned", pins, sorted([*record["links"], *record["maps"], "loaded", *follows]))
    programs = {program["id"]: program for program in bpftool("prog", "show")}
    for name, number in record["links"].items():
        link = bpftool("link", "show", "pinned", str(PINS / name))
        role = _role(name)
        kind = "iter" if name in ITERATORS else record["tier"].partition("/")[2]
        _expect(f"the id of {name}", link["id"], number)
        _expect(f"the type of {name}", link["type"], LINK_TYPES.get(kind, "perf_event"))
        _expect(f"the program of {name}", link["prog_id"], record["programs"][role])
        program = programs[link["prog_id"]]
        _expect(f"the type of program {role}", program["type"], PROGRAM_TYPES.get(kind, "kprobe"))
        _expect(f"the tag of program {role}", program["tag"], record["tags"][role])
    if follows:
        _expect("the process that follows events", said["follower"]["pid"], int(_unit("MainPID")))
    elif record["lifecycle"] == "held":
        _verify_held(record, said["holder"])
    for name, number in record["maps"].items():
        found = bpftool("map", "show", "pinned", str(PINS / name))
        _expect(f"the id of {name}", found["id"], number)
        _expect(f"the type of {name}", found["type"], MAP_TYPES[name])
    for name, setting in (
        ("conntrack_live", "max_entries"),
        ("conntrack_closed", "closed_entries"),
    ):
        found = bpftool("map", "show", "pinned", str(PINS / name))
        _expect(f"the size of {name}", found["max_entries"], record["spec"][setting])
    ours = sorted(number for number, program in programs.items() if _is_ours(program))
    _expect("our loaded programs", ours, sorted(record["programs"].values()))
    if spec is None:
        _expect("the unit's file state", _unit("UnitFileState"), "enabled")
        _expect("the unit's state", _unit("ActiveState"), "active")
    return (
        f"{record['tier']}: links {sorted(record['links'].values())}, programs "
        f"{sorted(record['programs'].values())}, maps {sorted(record['maps'].values())} as recorded"
    )


def _role(pin: str) -> str:
    return ITERATORS.get(pin) or pin.removeprefix("link_")


def _verify_held(record: dict[str, Any], holder: int) -> None:
    """The unit's process has a perf event of each program, and nobody else has one."""
    wanted = {
        number for role, number in record["programs"].items() if role not in ITERATORS.values()
    }
    events = [one for one in bpftool("perf", "show") if one["prog_id"] in wanted]
    _expect("which programs are held", sorted(one["prog_id"] for one in events), sorted(wanted))
    _expect("who holds them", {one["pid"] for one in events}, {holder})
    _expect("the holder", holder, int(_unit("MainPID")))


def _unit(name: str) -> str:
    return run("systemctl", "show", UNIT, f"--property={name}", "--value").strip()


def _is_ours(program: dict[str, Any]) -> bool:
    return str(program.get("name", "")).startswith(OURS)


def look() -> dict[str, object]:
    """All that a refused load must leave as it was."""
    pins = {}
    for path in sorted(PINS.iterdir()) if PINS.is_dir() else []:
        kind = "link" if path.name in ITERATORS or path.name.startswith("link_") else "map"
        pins[path.name] = bpftool(kind, "show", "pinned", str(path))["id"]
    objects = sorted(OBJECTS.iterdir()) if OBJECTS.is_dir() else []
    return {
        "spec_file": _digest(SPEC_FILE),
        "objects": {path.name: _digest(path) for path in objects},
        "pins": pins,
        "programs": sorted(one["id"] for one in bpftool("prog", "show") if _is_ours(one)),
        "links": [[link["id"], link["prog_id"]] for link in bpftool("link", "show")],
        "unit": _unit("ActiveState"),
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def main() -> int:
    """The exit code."""
    try:
        if sys.argv[1:] == ["verify"]:
            print(verify())
        else:
            print(json.dumps(look(), sort_keys=True))
    except GuestError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
