# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets, by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.answer import AnswerBytes, SignedAnswer
from tests.fuzz.contents import Audiences, Contents
from tests.fuzz.metadata import MetadataBytes, SignedMetadata
from tests.fuzz.poll import Poll
from tests.fuzz.target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "answer": AnswerBytes,
    "audience": Audiences,
    "contents": Contents,
    "metadata": MetadataBytes,
    "poll": Poll,
    "signed-answer": SignedAnswer,
    "signed-metadata": SignedMetadata,
}
