# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a look-up and of the status without argparse, which costs more than a look-up.

Whatever is not understood here (help, abbreviations, mistakes) is left to argparse.
"""

from __future__ import annotations

_LOOKUP = ["conntrack", "lookup"]


class StatusOptions:
    """What `btfleet.cli` gives the status, too."""

    run = "status_command"

    def __init__(self, json: bool) -> None:
        self.json = json


class Options:
    """What `btfleet.cli` gives a look-up, too."""

    run = "lookup_command"

    def __init__(self, source: str, destination: str) -> None:
        self.source = source
        self.destination = destination
        self.protocol = "tcp"
        self.netns: str | None = None
        self.zone = 0
        self.json = False


def parse(arguments: list[str]) -> Options | StatusOptions | None:
    """Return the options of a look-up or of the status, None for anything else."""
    if arguments in (["status"], ["status", "--json"]):
        return StatusOptions(json=len(arguments) == 2)
    if arguments[:2] != _LOOKUP:
        return None
    ends: list[str] = []
    given: dict[str, str] = {}
    words = iter(arguments[2:])
    for word in words:
        if word == "--json":
            given[word] = ""
        elif word in ("--protocol", "--netns", "--zone"):
            given[word] = value = next(words, "-")
            if value.startswith("-") or (word == "--zone" and not _is_number(value)):
                return None
        elif word.startswith("-"):
            return None
        else:
            ends.append(word)
    if len(ends) != 2:
        return None
    options = Options(*ends)
    options.protocol = given.get("--protocol", options.protocol)
    options.netns = given.get("--netns")
    options.zone = int(given.get("--zone", "0"))
    options.json = "--json" in given
    return options


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
