# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a rollout has come over all its batches, and whether it may go on. Pure.

Ansible's own limits count in one batch only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

PASSED = "passed"

_COUNT = re.compile(r"(\d+)(%?)")
# So many names in a line; a count stands for the rest
_NAMES = 10


class ProgressError(ValueError):
    """One line: which variable is wrong, and what it should be."""


def number_of(value: object, total: int, name: str, least: int) -> int:
    """A number of hosts from `value`, which is one or a share of `total`; raises ProgressError."""
    match = _COUNT.fullmatch(str(value).strip())
    if match is None or isinstance(value, bool):
        raise ProgressError(
            f"{name} is {value!r}, needed: a number of hosts, or a share as in '10%'"
        )
    number = int(match.group(1))
    if match.group(2):
        if number > 100:
            raise ProgressError(f"{name} is {value!r}, needed: 100% at the most")
        number = number * total // 100
    return max(number, least)


def split(hosts: Sequence[str], batches: object) -> list[list[str]]:
    """The hosts of each batch, as Ansible's `serial` makes them; raises ProgressError."""
    sizes = batches if isinstance(batches, (list, tuple)) else [batches]
    if not sizes:
        raise ProgressError("conntracker_batches is empty, needed: a list as in [1, '100%']")
    numbers = [number_of(size, len(hosts), "conntracker_batches", 1) for size in sizes]
    found: list[list[str]] = []
    rest = list(hosts)
    while rest:
        number = numbers[min(len(found), len(numbers) - 1)]
        found.append(rest[:number])
        rest = rest[number:]
    return found


@dataclass(frozen=True)
class Progress:
    """`begun` has the hosts of all batches that were begun, `failed` why each failed, and `batch`
    is the number of the one that comes now (of `batches`).
    """

    total: int
    batch: int
    batches: int
    budget: int
    begun: tuple[str, ...]
    failed: Mapping[str, str]
    canary_failed: bool

    @property
    def go(self) -> bool:
        """Whether the next batch may begin."""
        return not self.canary_failed and len(self.failed) <= self.budget

    @property
    def counts(self) -> str:
        """Done, failed and budget in a few words."""
        done = len(self.begun) - len(self.failed)
        return f"{done} of {self.total} done, {len(self.failed)} failed (budget {self.budget})"


def progress(
    results: Sequence[Mapping[str, Any]],
    hosts: Sequence[str],
    batch: Sequence[str],
    batches: object,
    budget: object,
) -> Progress:
    """How it stands before `batch` begins, or, where that is empty, at the end.

    A host of a batch that is over and that left no result is one that failed.
    """
    parts = split(hosts, batches)
    found = {str(result["host"]): result for result in results}
    if batch:
        over = next(n for n, part in enumerate(parts) if batch[0] in part)
    else:
        last = [n for n, part in enumerate(parts) if not found.keys().isdisjoint(part)]
        over = last[-1] + 1 if last else 0
    begun = tuple(host for part in parts[:over] for host in part)
    failed = {
        host: str(found[host].get("reason")) if host in found else "it was lost on the way"
        for host in begun
        if host not in found or found[host].get("outcome") != PASSED
    }
    return Progress(
        total=len(hosts),
        batch=over + 1,
        batches=len(parts),
        budget=number_of(budget, len(hosts), "conntracker_failure_budget", 0),
        begun=begun,
        failed=failed,
        canary_failed=bool(parts) and not failed.keys().isdisjoint(parts[0]),
    )


def batch_line(now: Progress, batch: Sequence[str]) -> str:
    """The line at the beginning of a batch."""
    hosts = names(batch)
    return f"batch {now.batch} of {now.batches}: {hosts}; {now.counts}"


def report(
    end: Progress, hosts: Sequence[str], changes: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """The lines at the end: what it came to, each host that failed and why, and who was spared.

    `changes` is given where it was a dry run: what would change, by the host that passed.
    """
    what = "rollout" if changes is None else "check"
    left = [host for host in hosts if host not in set(end.begun)]
    if not left:
        head = f"the {what} is through"
    elif not end.begun:
        head = f"the {what} has not begun"
    elif end.canary_failed:
        head = f"the {what} stopped after batch 1 of {end.batches}: a canary failed"
    else:
        head = (
            f"the {what} stopped after batch {end.batch - 1} of {end.batches}: "
            "the failure budget is used up"
        )
    lines = [f"{head}; {end.counts}"]
    if changes is not None:
        lines = [f"{lines[0]}; nothing was changed", *_would_change(changes)]
    lines += [f"failed: {host}: {reason}" for host, reason in end.failed.items()]
    if left:
        lines.append(f"untouched: {names(left)}")
    return lines


def _would_change(changes: Mapping[str, Sequence[str]]) -> list[str]:
    """Say what would change, once for all the hosts where it is the same."""
    grouped: dict[str, list[str]] = {}
    for host, parts in changes.items():
        grouped.setdefault(", ".join(parts), []).append(host)
    return [
        f"would change ({parts}): {names(hosts)}" if parts else f"as asked for: {names(hosts)}"
        for parts, hosts in grouped.items()
    ]


def names(hosts: Sequence[str]) -> str:
    """Names, as far as there is room for them."""
    shown = ", ".join(hosts[:_NAMES])
    more = len(hosts) - _NAMES
    return f"{shown} and {more} more" if more > 0 else shown
