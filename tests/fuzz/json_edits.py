# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to JSON inside of an input that leave it JSON. Bytes changed at random hardly ever do."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_NUMBERS = (0, 1, 2, -1, 255, 256, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**70), 1.5)
_TEXTS = ("", "1", "x", "x" * 300, "..", "../..", "/", "\0", "\ud800", "\xe9", "\u202e", "ab" * 32)
_WORDS = ("sha256", "sha512", "ed25519", "root", "targets", "btfleet/1/AGENT/a/b")
_TIMES = ("2000-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
_INNER: tuple[Any, ...] = ([], {}, [[]], {"": {}}, [None, None])
LEAVES: tuple[Any, ...] = (
    *(None, True, False),
    *(*_NUMBERS, *_TEXTS, *_WORDS, *_TIMES, *_INNER),
)
_MAX_NESTING = 60


def edited(data: bytes, seed: int) -> bytes:
    """The input with some changes in one of its JSON lines; the input itself if it has none."""
    rng = random.Random(seed)  # noqa: S311 no secret
    found = data.split(b"\n")
    for number in rng.sample(range(len(found)), len(found)):
        head, brace, tail = found[number].partition(b"{")
        try:
            value = json.loads(brace + tail)
        except (ValueError, RecursionError):
            continue
        for _change in range(rng.choice((1, 1, 1, 2, 5))):
            value = _changed(value, rng)
        found[number] = head + json.dumps(value).encode()
        return b"\n".join(found)
    return data


def _changed(value: Any, rng: random.Random) -> Any:
    top = {"": value}
    place: Any = top
    key: Any = ""
    # Down to a random depth
    for _level in range(_MAX_NESTING):
        inner = place[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.15:
            break
        place = inner
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
    kind = rng.randrange(8)
    if kind == 0 and place is not top:
        del place[key]
    elif kind == 1 and isinstance(place, dict) and place is not top:
        place[rng.choice((*place, "x", "", "custom", "delegations"))] = place.pop(key)
    elif kind == 2 and isinstance(place[key], dict):
        place[key][rng.choice(("x", "", "v", "expires", "delegations", "sha512"))] = _leaf(rng)
    elif kind == 3 and isinstance(place[key], list):
        place[key].append(copy.deepcopy(rng.choice([*place[key], _leaf(rng)])))
    elif kind == 4:
        place[key] = [copy.deepcopy(place[key])]
    elif kind == 5 and isinstance(place[key], int):
        place[key] += rng.choice((-1, 1))
    else:
        place[key] = _leaf(rng)
    return top[""]


def _leaf(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(LEAVES))
