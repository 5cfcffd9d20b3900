# SPDX-License-Identifier: GPL-3.0-or-later
"""The product CONNTRACK: asks the loader for a spec, and reads back what is in force.

The agent loads nothing itself. It replaces `wanted.json`, which a systemd path unit watches; the
loader answers in `applied.json`; and a config is APPLIED only when the tracker's record, read from
the kernel, has the fingerprint.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Callable, Mapping, NamedTuple

from btfleet._config import remote
from btfleet._config.catalogue import CONNTRACK_KEYS
from btfleet._kernel.errors import InvalidSpec, TrackerError
from btfleet._kernel.spec import Spec
from btfleet._kernel.store import Store, write_atomically
from btfleet.poller import wanted
from btfleet.poller.listener import Configs
from btfleet.poller.request import Value
from btfleet.poller.states import APPLYING, FAILED, StateBook, phase_name
from btfleet.poller.wanted import PRODUCT, Asked, Plan

log = logging.getLogger(__name__)

Record = Mapping[str, object]

# Seconds between looks, while something is under way and while nothing is
_BUSY, _QUIET = 0.5, 5.0


class Signature(NamedTuple):
    """Tells whether a file is another one than before."""

    inode: int
    size: int
    mtime_ns: int


def signature(path: str) -> Signature | None:
    """A file's, None if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Signature(found.st_ino, found.st_size, found.st_mtime_ns)


class ConntrackProduct:
    """Handler of the product. `read_record` gives the tracker's record, None if none is loaded."""

    def __init__(
        self,
        store: Store,
        book: StateBook,
        read_record: Callable[[], Record | None],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = _QUIET
        # Values in force with their owners, as read back from the kernel; replaced as a whole
        self.effective: dict[str, Value] = {}
        self._store = store
        self._book = book
        self._read_record = read_record
        self._on_change = on_change
        self._clock = clock
        self._configs: Configs = {}
        self._started = False
        self._plan = Plan(remote.Wanted("", {}, {}))
        self._asked: Asked | None = None
        self._sources: tuple[Signature | None, ...] = ()
        self._described: object = ()

    def update(self, configs: Configs) -> None:
        """Other configs: another plan."""
        self._configs = configs
        self._started = True
        self._make_plan()

    def watch(self) -> None:
        """Asks where that is needed, and reports what came of it."""
        if self._sources != self._read_sources():
            self._make_plan()
        try:
            record = self._read_record()
        except (OSError, TrackerError) as exc:
            self._report(
                wanted.Judgement(FAILED, f"the tracker's record cannot be read ({exc}): load again")
            )
            return
        if self._started:
            self._follow_up(record)
        self._describe(record)

    def _follow_up(self, record: Record | None) -> None:
        loaded = str(record["fingerprint"]) if record else None
        answer = remote.read_answer(self._store)
        try:
            self._ask(loaded, answer)
        except OSError as exc:
            self._report(
                wanted.Judgement(FAILED, f"cannot write {self._store.wanted_path} ({exc.strerror})")
            )
            return
        judgement = wanted.judge(self._plan, self._asked, answer, loaded, self._clock())
        self._report(judgement)
        self.interval = _BUSY if judgement.phase == APPLYING else _QUIET

    # --- plan ---------------------------------------------------------------------------------

    def _read_sources(self) -> tuple[Signature | None, ...]:
        return signature(self._store.spec_path), signature(self._store.remote_path)

    def _make_plan(self) -> None:
        """From the configs, the base and what Ansible allows; whatever was asked before is over."""
        self._sources = self._read_sources()
        base, why_no_base = self._read_base()
        contents = {path: config.raw for path, config in self._configs.items()}
        try:
            allowed = remote.read_allowed(self._store)
        except (InvalidSpec, OSError) as exc:
            # Without it nothing is allowed, and each config says why
            self._set_plan(wanted.make_plan(base, why_no_base, {}, ()), str(exc))
            return
        self._set_plan(wanted.make_plan(base, why_no_base, contents, allowed))

    def _set_plan(self, plan: Plan, why_nothing: str = "") -> None:
        if why_nothing:
            plan = Plan(plan.wanted, plan.spec, dict.fromkeys(self._configs, why_nothing))
        if plan != self._plan:
            self._asked = None
        self._plan = plan

    def _read_base(self) -> tuple[Spec | None, str]:
        try:
            base = self._store.read_spec()
        except (InvalidSpec, OSError) as exc:
            return None, str(exc)
        return base, (
            f"{self._store.spec_path} is missing: install the object first "
            "(module btfleet.conntrack.conntrack_object)"
        )

    # --- asking -------------------------------------------------------------------------------

    def _ask(self, loaded: str | None, answer: remote.Answer | None) -> None:
        try:
            on_disk = remote.read_wanted(self._store)
        except remote.WantedRefused:  # damaged: written again
            on_disk = remote.Wanted("", {}, {})
        now = self._clock()
        if not wanted.has_to_ask(self._plan, on_disk, self._asked, loaded, now):
            return
        content = json.dumps(self._plan.wanted._asdict(), sort_keys=True) + "\n"
        write_atomically(self._store.wanted_path, content.encode(), 0o640)
        times = self._asked.times + 1 if self._asked else 1
        self._asked = Asked(now, times, answer)
        log.info(
            "asked the loader for request %s: %s",
            self._plan.wanted.request[:12],
            json.dumps(self._plan.wanted.settings, sort_keys=True),
        )

    # --- reporting ----------------------------------------------------------------------------

    def _report(self, judgement: wanted.Judgement) -> None:
        changed = False
        for path, config in self._configs.items():
            refused = self._plan.refused.get(path)
            one = judgement if refused is None else wanted.Judgement(FAILED, refused)
            if self._book.report(config, *one):
                changed = True
                level = logging.WARNING if one.phase == FAILED else logging.INFO
                log.log(level, "%s: %s", path, one.reason or phase_name(one.phase))
        if changed:
            self._on_change()

    def _describe(self, record: Record | None) -> None:
        """The effective values; the files are only read when something is another than before."""
        seen = (
            record and record["fingerprint"],
            self._sources,
            signature(self._store.wanted_path),
        )
        if seen == self._described:
            return
        self._described = seen
        spec = record.get("spec") if record else None
        if not isinstance(spec, dict):
            self.effective = {}
            return
        base, _reason = self._read_base()
        effective = remote.effective(self._store, base) if base else None
        owners = remote.owners_in_force(spec, base, effective)
        self.effective = {
            f"{PRODUCT}.{key}": Value(spec[key], owners.get(key) or "")
            for key in CONNTRACK_KEYS
            if key in spec
        }
