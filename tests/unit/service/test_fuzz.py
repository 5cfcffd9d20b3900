# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata that are signed well and make no sense: taken or refused, and never anything else.

Whoever holds a role's key can sign anything. Nothing of it may end a refresh in another way than
with a line, or be served as something that the other repository does not confirm.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from btfleet._config.paths import parse
from btfleet.service.errors import Refused
from btfleet.service.generation import NOTHING, Generation
from btfleet.service.update import update
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from tests.unit.service.simulator import Simulator, path_of

# By hand, after changes of the checks: some thousands
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([2**63 - 1, 2**63, -(2**70), "", "1", "x" * 300, "../..", "\x00", "ed25519"])
    | st.text(max_size=5)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def published() -> Iterator[Simulator]:
    """Two configs; metadata name each other by version only, so that any of them can be changed."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="btfleet-") as folder:
        simulator = Simulator(Path(folder) / "repository")
        simulator.put(path_of("first"), {"udpv6_enabled": False}, predicates=[{"host": "h1"}])
        simulator.put(path_of("second"), {"max_entries": 4096})
        simulator.write()
        for repository in simulator.repositories.values():
            listed = repository.snapshot.signed.meta["targets.json"]
            listed.length = listed.hashes = None
            named = repository.timestamp.signed.snapshot_meta
            named.length = named.hashes = None
            for role in ("timestamp", "snapshot"):
                name = "timestamp.json" if role == "timestamp" else "1.snapshot.json"
                raw = repository.sign(getattr(repository, role), role)
                (simulator.current / repository.name / name).write_bytes(raw)
        yield simulator


def changed(data: st.DataObject, value: Any) -> Any:
    """The value with something in it replaced, taken out or put in."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 9)):
        key = data.draw(st.sampled_from(sorted(value)))
        kind = data.draw(st.integers(0, 9))
        if kind == 0:
            return {name: each for name, each in value.items() if name != key}
        if kind == 1:
            return {**value, data.draw(st.text(max_size=5)): data.draw(values)}
        return {**value, key: changed(data, value[key])}
    if isinstance(value, list) and value and data.draw(st.integers(0, 9)):
        return [*value[1:], changed(data, value[0])]
    return data.draw(values)


def refreshed(simulator: Simulator) -> Generation | None:
    """A first refresh of a new service."""
    anchors = {name: each.roots[1] for name, each in simulator.repositories.items()}
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="btfleet-") as folder:
        return update(str(simulator.folder), None, anchors, NOTHING, Path(folder) / "staging", 1)


def check_line(exc: Refused) -> None:
    """One line, which does not grow with what was put in."""
    assert "\n" not in str(exc)
    assert len(str(exc)) < 2000


def test_what_the_fuzzing_starts_from_is_taken(published: Simulator) -> None:
    generation = refreshed(published)
    assert generation
    assert len(generation.targets) == 2


@pytest.mark.parametrize("which", ["director", "config"])
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_metadata_with_any_content_under_a_good_signature(
    published: Simulator, which: str, role: str, data: st.DataObject
) -> None:
    repository = published.repositories[which]
    signed = copy.deepcopy(getattr(repository, role).signed.to_dict())
    name = "timestamp.json" if role == "timestamp" else f"1.{role}.json"
    if role == "root":
        signed["version"], name = 2, "2.root.json"
    signed = changed(data, signed)
    signer = repository.signers[role][0]
    canonical = encode_canonical(signed)
    assert canonical is not None
    signature = signer.sign(canonical.encode())
    raw = json.dumps({"signed": signed, "signatures": [signature.to_dict()]}).encode()
    file = published.current / which / name
    before = file.read_bytes() if file.exists() else None
    file.write_bytes(raw)
    try:
        generation = refreshed(published)
    except Refused as exc:
        check_line(exc)
        return
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
    assert generation
    for target in generation.targets:
        assert parse(target.path).org == 1
        assert generation.files[target.sha256] in published.contents.values()


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_bytes_that_were_changed_on_the_way(published: Simulator, data: st.DataObject) -> None:
    files = sorted(file for file in published.current.rglob("*") if file.is_file())
    file = data.draw(st.sampled_from(files))
    before = file.read_bytes()
    raw = bytearray(before)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(raw)
    try:
        generation = refreshed(published)
    except Refused as exc:
        check_line(exc)
        return
    finally:
        file.write_bytes(before)
    # white space, or the first root, which is not read from there
    assert generation
    assert set(generation.files.values()) == set(published.contents.values())
