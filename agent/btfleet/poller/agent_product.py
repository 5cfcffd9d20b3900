# SPDX-License-Identifier: GPL-3.0-or-later
"""The product AGENT: the agent's own poll interval, log level and metrics, while it runs."""

from __future__ import annotations

import logging
from typing import Callable, Mapping

from btfleet._config import remote
from btfleet._config.catalogue import KEYS
from btfleet._config.merge import BASE, Effective, merge
from btfleet._kernel.errors import InvalidSpec
from btfleet._kernel.store import Store
from btfleet.poller.conntrack_product import Signature, signature
from btfleet.poller.listener import Configs
from btfleet.poller.request import Value
from btfleet.poller.settings import Settings
from btfleet.poller.states import APPLIED, FAILED, StateBook
from btfleet.poller.wanted import settings_of

PRODUCT = "AGENT"

log = logging.getLogger(__name__)

# Puts one setting into force; raises OSError where that cannot be done
Setter = Callable[[object], None]


class AgentProduct:
    """Handler of the product. `setters` has one function for each key."""

    interval = 5.0

    def __init__(
        self,
        settings: Settings,
        store: Store,
        book: StateBook,
        setters: Mapping[str, Setter],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._base = {key: getattr(settings, key) for key in KEYS[PRODUCT]}
        # Values in force with their owners; replaced as a whole
        self.effective: dict[str, Value] = {}
        self._store = store
        self._book = book
        self._setters = setters
        self._on_change = on_change
        self._configs: Configs = {}
        self._started = False
        self._source: Signature | None = None
        self._in_force: dict[str, Value] = {}
        # Whether something could not be put into force
        self._failed = False

    def update(self, configs: Configs) -> None:
        """Other configs."""
        self._configs = configs
        self._started = True
        self._apply()

    def watch(self) -> None:
        """Ansible may allow other keys meanwhile; what could not be set may be possible now."""
        if self._started and (self._failed or self._source != signature(self._store.remote_path)):
            self._apply()

    def start(self) -> None:
        """Puts the base into force, before any config is known."""
        self._put(Effective(self._base, dict.fromkeys(self._base, BASE), {}))

    def _apply(self) -> None:
        self._source = signature(self._store.remote_path)
        contents = {path: config.raw for path, config in self._configs.items()}
        good, refused = settings_of(PRODUCT, contents)
        try:
            allowed = remote.read_allowed(self._store)
        except (InvalidSpec, OSError) as exc:
            good, refused = {}, dict.fromkeys(contents, str(exc))
            allowed = frozenset()
        merged = merge(PRODUCT, self._base, good, allowed)
        self._report({**refused, **merged.refused, **self._put(merged)})

    def _put(self, merged: Effective) -> dict[str, str]:
        """Puts values into force; returns what could not be, by owner."""
        failed = {}
        for key, value in merged.values.items():
            if key in self._in_force and self._in_force[key].value == value:
                self._in_force[key] = Value(value, merged.owners[key])
                continue
            try:
                self._setters[key](value)
            except OSError as exc:
                reason = f"{key} cannot be set to {value!r} ({exc}): see to that, it is tried again"
                failed[merged.owners[key]] = reason
                if not self._failed:
                    log.warning("%s", reason)
            else:
                self._in_force[key] = Value(value, merged.owners[key])
        self._failed = bool(failed)
        self.effective = {f"{PRODUCT}.{key}": value for key, value in self._in_force.items()}
        return failed

    def _report(self, refused: Mapping[str, str]) -> None:
        changed = False
        for path, config in self._configs.items():
            reason = refused.get(path, "")
            if self._book.report(config, FAILED if reason else APPLIED, reason):
                changed = True
                if reason:
                    log.warning("%s is not in force: %s", path, reason)
                else:
                    log.info("%s is in force", path)
        if changed:
            self._on_change()
