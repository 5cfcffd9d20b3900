# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that each role's defaults and its argument_specs say the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def load(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an absent or empty file is an empty one."""
    if not path.exists():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def problems(defaults: dict[str, Any], options: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Where the two differ. An option without a default may stay out of defaults/main.yml."""
    for name in sorted(defaults.keys() - options.keys()):
        yield f"{name} is a default, but no option in argument_specs"
    for name, option in sorted(options.items()):
        if name not in defaults:
            if "default" in option:
                yield f"{name} has a default in argument_specs, but none in defaults/main.yml"
        elif "{{" not in str(defaults[name]) and option.get("default") != defaults[name]:
            yield (
                f"{name} is {defaults[name]!r} in defaults/main.yml, "
                f"but {option.get('default')!r} in argument_specs"
            )


def role_problems(role: Path) -> list[str]:
    """What is wrong with one role, each as one line."""
    specs = load(role / "meta" / "argument_specs.yml").get("argument_specs")
    if not specs:
        return [f"{role}: meta/argument_specs.yml is missing or empty"]
    options: dict[str, dict[str, Any]] = {}
    for entry_point in specs.values():
        options.update(entry_point.get("options") or {})
    defaults = load(role / "defaults" / "main.yml")
    return [f"{role}: {problem}" for problem in problems(defaults, options)]


def main() -> int:
    """Check every role under roles/."""
    found = [
        line
        for role in sorted(Path("roles").glob("*"))
        if role.is_dir()
        for line in role_problems(role)
    ]
    for line in found:
        print(f"role specs: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
