# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is published to what is wanted: read, plan, sign, verify, switch, note down."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ContextManager, Mapping, NamedTuple, Sequence

from . import configs as configs_
from . import libraries, verification
from . import plan as plan_
from . import repository as repository_
from .errors import PublisherError
from .generations import Generation, Generations
from .keys import KeyFolder
from .plan import REPOSITORIES, ROLES, Plan, RoleWanted, State
from .repository import Repository


class Outcome(NamedTuple):
    """What was done, or would be: before and after as a diff shows them."""

    changed: bool
    before: dict[str, Any]
    after: dict[str, Any]
    generation: int | None
    repositories: dict[str, Any]
    warnings: list[str]


class ConfigsOutcome(NamedTuple):
    """The same of configs; `paths` are those asked for, `configs` describes the ones there."""

    changed: bool
    before: dict[str, Any]
    after: dict[str, Any]
    generation: int | None
    repositories: dict[str, Any]
    paths: list[str]
    configs: dict[str, Any]
    withdrawn: list[str]
    warnings: list[str]


class Settings(NamedTuple):
    """What the two repositories are to be; `roles` by repository and role."""

    org: int
    roles: Mapping[str, Mapping[str, RoleWanted]]
    margin: int
    rotate: tuple[str, ...] = ()
    rotation_id: str | None = None

    def rotation(self, repository: str) -> dict[str, str]:
        """The rotation that is asked for, by role."""
        return {
            role: self.rotation_id or "" for role in ROLES if f"{repository}.{role}" in self.rotate
        }


class Present(NamedTuple):
    """A generation with what plans are made from."""

    generation: Generation
    states: dict[str, State]


@dataclass(frozen=True)
class Publisher:
    """Publishes to one folder with the keys of one key folder. `check`: only says what it would."""

    generations: Generations
    keys: KeyFolder
    check: bool = False

    def converge(self, settings: Settings, now: datetime) -> Outcome:
        """Brings keys, thresholds and expiries to what is wanted; raises PublisherError."""
        check_settings(settings)
        with self._lock():
            present = self._read()
            if present is None:
                return self._create(settings, now)
            found = present.generation.repositories["config"].org
            if found != settings.org:
                raise PublisherError(
                    f"the repositories are for org {found}, asked for: {settings.org} "
                    "(an org cannot change: use another path and key folder)"
                )
            plans, warnings = {}, []
            for name in REPOSITORIES:
                plans[name], more = plan_.converge(
                    name,
                    present.states[name],
                    settings.roles[name],
                    settings.rotation(name),
                    now,
                    settings.margin,
                )
                warnings += more
            before = {name: plan_.as_shown(present.states[name]) for name in REPOSITORIES}
            if not any(plan_.signed(plans[name]) for name in REPOSITORIES):
                number = present.generation.number
                return Outcome(False, before, before, number, before, warnings)
            return self._reach(present, plans, _targets(present), settings.org, now, warnings)

    def publish(
        self, entries: Sequence[Mapping[str, Any]], exclusive: bool, now: datetime
    ) -> ConfigsOutcome:
        """Publishes and withdraws configs, all in one generation.

        Raises PublisherError, and ConfigError for what cannot be published.
        """
        with self._lock():
            present = self._read()
            if present is None:
                raise PublisherError(
                    f"{self.generations.root} has no repositories: "
                    "make them with the module config_repository"
                )
            repositories = present.generation.repositories
            org = repositories["config"].org
            asked = configs_.wanted(entries, org, exclusive)
            old = {name: repositories[name].targets.targets for name in REPOSITORIES}
            change = configs_.change(
                old["director"],
                old["config"],
                asked,
                repositories["config"].versions["targets"] + 1,
            )
            new = {"director": change.director, "config": change.config}
            touched = sorted({*change.published, *change.withdrawn})
            before = {path: self._describe(path, old["director"]) for path in touched}
            contents = {one.path: one.raw for one in asked.present}
            described = {
                path: configs_.describe(path, change.director, raw)
                for path, raw in contents.items()
            }
            after = {path: described.get(path) for path in touched}
            plans = {
                name: plan_.publish(name, present.states[name], now)
                if new[name] != old[name]
                else plan_.unchanged(present.states[name])
                for name in REPOSITORIES
            }
            missing = {
                path: change.config[path]
                for path in contents
                if self.generations.read_target(change.config[path]) is None
            }
            lacking = [(target, contents[path]) for path, target in missing.items()]
            shown = {name: plan_.as_shown(present.states[name]) for name in REPOSITORIES}
            number: int | None = present.generation.number
            if touched:
                outcome = self._reach(present, plans, new, org, now, [], lacking)
                shown, number = outcome.repositories, outcome.generation
            elif lacking and not self.check:
                self.generations.write_targets(lacking)
            return ConfigsOutcome(
                bool(touched or missing),
                before,
                after,
                number,
                shown,
                [*contents, *asked.absent],
                described,
                change.withdrawn,
                [
                    f"{one.path} has expired already, so it is for no host"
                    for one in asked.present
                    if one.expires and one.expires <= now.timestamp()
                ],
            )

    def remove(self) -> bool:
        """Removes both repositories and their keys, for good; whether there was anything."""
        there = (
            os.path.lexists(os.path.join(self.generations.root, "current"))
            or self.keys.read_anchor() is not None
        )
        if there and not self.check:
            with self._lock():
                self.generations.remove()
                self.keys.remove()
        return there

    def _lock(self) -> ContextManager[None]:
        """Whoever only looks needs no lock: what he looks at does not change."""
        return nullcontext() if self.check else self.generations.locked()

    def _read(self) -> Present | None:
        """What is published, verified; None if nothing ever was."""
        _check_apart(self.generations.root, self.keys.path)
        self.keys.check()
        generation = self.generations.read()
        anchor = self.keys.read_anchor()
        if generation is None:
            if anchor is not None and not anchor.is_first:
                raise PublisherError(
                    f"{self.generations.root} was published before, but its link current is gone: "
                    "put the folder back from the backup (to begin anew, with new roots for all "
                    "hosts, use state=absent with force first)"
                )
            return None
        verification.check_current(self.generations, generation, anchor)
        return Present(
            generation,
            {
                name: repository_.state(one, self.keys.available(name))
                for name, one in generation.repositories.items()
            },
        )

    def _create(self, settings: Settings, now: datetime) -> Outcome:
        plans = {
            name: plan_.create(settings.roles[name], settings.rotation(name))
            for name in REPOSITORIES
        }
        for name in REPOSITORIES:
            self.keys.check_passphrases(name)
        none: dict[str, dict[str, libraries.TargetFile]] = {name: {} for name in REPOSITORIES}
        return self._reach(None, plans, none, settings.org, now, [])

    def _reach(
        self,
        present: Present | None,
        plans: Mapping[str, Plan],
        targets: Mapping[str, Mapping[str, libraries.TargetFile]],
        org: int,
        now: datetime,
        warnings: list[str],
        files: Sequence[tuple[libraries.TargetFile, bytes]] = (),
    ) -> Outcome:
        before, signers = {}, {}
        for name in REPOSITORIES:
            state = present.states[name] if present else None
            before[name] = plan_.as_shown(state) if state else None
            signers[name] = self._signers(name, present, plans[name])
        if self.check:
            after = {
                name: plan_.predicted(present.states[name] if present else None, plans[name], now)
                for name in REPOSITORIES
            }
            number = present.generation.number + 1 if present else 1
            return Outcome(True, before, after, number, after, warnings)
        repositories = {
            name: self._sign(name, present, plans[name], signers[name], targets[name], org, now)
            for name in REPOSITORIES
        }
        self.generations.write_targets(files)
        number = self._publish(present, repositories)
        after = {
            name: plan_.as_shown(repository_.state(one, [])) for name, one in repositories.items()
        }
        return Outcome(True, before, after, number, after, warnings)

    def _signers(
        self, name: str, present: Present | None, plan: Plan
    ) -> dict[str, list[libraries.Signer]]:
        """Opens the keys that are there already. For a root, those of the one before too."""
        found: dict[str, list[libraries.Signer]] = {role: [] for role in ROLES}
        if present is None:
            return found
        root = present.generation.repositories[name].root
        for role in plan_.signed(plan):
            state = present.states[name][role]
            wanted = state.keyids if role == "root" else plan[role].keep
            found[role] += [
                self.keys.open(name, role, root.keys[keyid])
                for keyid in wanted
                if keyid in state.available
            ]
        if any(plan[role].fresh for role in ROLES):
            self.keys.check_passphrases(name)
        return found

    def _sign(
        self,
        name: str,
        present: Present | None,
        plan: Plan,
        signers: dict[str, list[libraries.Signer]],
        targets: Mapping[str, libraries.TargetFile],
        org: int,
        now: datetime,
    ) -> Repository:
        fresh: dict[str, list[libraries.Key]] = {}
        for role in ROLES:
            made = [self.keys.create(name, role) for _number in range(plan[role].fresh)]
            fresh[role] = [signer.public_key for signer in made]
            signers[role] += made
        before = present.generation.repositories[name] if present else None
        return repository_.sign(before, plan, signers, fresh, targets, org, now)

    def _publish(self, present: Present | None, repositories: dict[str, Repository]) -> int:
        before = present.generation if present else None
        new = self.generations.write(before, repositories)
        try:
            verification.check_new(self.generations, before, new)
        except BaseException:
            shutil.rmtree(new.folder)
            raise
        if before is None:
            self.keys.write_anchor(verification.first_anchor(repositories))
        self.generations.switch(new)
        self.keys.write_anchor(verification.anchor_of(repositories))
        for name, repository in repositories.items():
            roles = repository.root.roles
            self.keys.keep_only(name, {role: roles[role].keyids for role in ROLES})
        self.generations.prune()
        return new.number

    def _describe(self, path: str, director: Mapping[str, libraries.TargetFile]) -> Any:
        if path not in director:
            return None
        return configs_.describe(path, director, self.generations.read_target(director[path]))


def role_settings(
    entries: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, RoleWanted]]:
    """The wanted roles by repository: the defaults, but for what the entries say.

    An entry has `name` (REPOSITORY.role) and any of `keys`, `threshold`, `expiry_days`. Raises
    PublisherError for a role that stands twice.
    """
    roles = {name: dict(plan_.DEFAULTS) for name in REPOSITORIES}
    seen = set()
    for entry in entries:
        if entry["name"] in seen:
            raise PublisherError(f"roles has {entry['name']} twice: say it once")
        seen.add(entry["name"])
        name, _dot, role = entry["name"].partition(".")
        given = {
            field: entry[option]
            for field, option in (
                ("keys", "keys"),
                ("threshold", "threshold"),
                ("days", "expiry_days"),
            )
            if entry.get(option) is not None
        }
        roles[name][role] = roles[name][role]._replace(**given)
    return roles


def check_settings(settings: Settings) -> None:
    """Raises PublisherError for what cannot be."""
    for name in REPOSITORIES:
        for role in ROLES:
            plan_.check_wanted(f"{name}.{role}", settings.roles[name][role])
    if not 1 <= settings.margin <= 99:
        raise PublisherError(
            f"the renewal margin is {settings.margin}, needed: a number of percent from 1 to 99"
        )
    if settings.org < 0:
        raise PublisherError(f"org is {settings.org}, needed: a number from 0")
    if settings.rotate and not settings.rotation_id:
        raise PublisherError(
            "rotate is given without rotation_id, needed: an id of your choice for this rotation, "
            "so that running again does not rotate again"
        )


def _targets(present: Present) -> dict[str, dict[str, libraries.TargetFile]]:
    return {name: one.targets.targets for name, one in present.generation.repositories.items()}


def _check_apart(root: str, keys: str) -> None:
    """Keys are never published, and what is published is not hidden among keys."""
    one, other = os.path.realpath(root), os.path.realpath(keys)
    common = os.path.commonpath([one, other])
    if common in (one, other):
        raise PublisherError(
            f"the key folder {keys} and the published folder {root} lie in each other, "
            "needed: two folders apart"
        )
