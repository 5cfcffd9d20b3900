# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The swap in a load: before it the former tracker is active, after it the new one.

A set of pins is staged beside the active one, the record last. From then on the set is complete,
and whatever happens is finished forwards; before that, it is taken back (see `bpffs.Pins`).
"""

from __future__ import annotations

from typing import Mapping

from ..bpf.bpffs import Pins
from . import access
from .state import Active, known_pins


def stage(pins: Pins, descriptors: Mapping[str, int]) -> None:
    """Pin `descriptors`, readable by the agent's group; raises LoaderError, with nothing staged."""
    pins.stage(descriptors)
    try:
        access.grant(pins.folder, access.group_id())
    except OSError:
        pins.take_back()
        raise


def finish(active: Active) -> None:
    """Make what is staged active, if it is complete, and unpin what does not belong to it."""
    pins = active.pins
    pins.recover()
    record = active.read_record()
    if record is not None:
        pins.commit(known_pins(record))
