# SPDX-License-Identifier: GPL-3.0-or-later
"""What a config service, or whoever poses as one, sends to an agent."""

from __future__ import annotations

from btfleet.config.v1 import config_pb2 as pb
from btfleet.poller import verify
from btfleet.poller.errors import UpdateRefused
from btfleet.poller.verify import Stored, Trusted
from google.protobuf.message import DecodeError

from tests.fuzz.signed import fixed_keys, lines, sign, signed_part, split
from tests.fuzz.target import check_line
from tests.unit.poller.director import CALM, DAY, HOST, NO_UDP6, NOW, Director, content

_FILES = {NO_UDP6: content(udpv6_enabled=False), CALM: content(poll_interval_seconds=30)}


class _Answers:
    """A director with two versions of targets and two roots, and an agent that holds the older."""

    def __init__(self) -> None:
        with fixed_keys():
            self.director = Director()
            self.new = verify.start(self.director.first_root)
            self.director.publish({NO_UDP6: _FILES[NO_UDP6]})
            self.older = self.director.answer()
            self.held = verify.update(self.new, self.older, HOST, NOW)
            self._first_signers = self.director.signers["root"]
            self.director.rotate("root", "snapshot")
            self.director.publish(
                _FILES, predicates=[{"group": "edge"}, {"labels": {"site": "b"}}], expires=NOW + DAY
            )

    def take(self, trusted: Trusted, answer: pb.ClientGetConfigsResponse) -> Trusted | None:
        """The state afterwards, None if the answer is refused."""
        before = _copy(trusted)
        try:
            after = verify.update(trusted, answer, HOST, NOW)
        except UpdateRefused as exc:
            check_line(exc)
            assert _copy(trusted) == before, "it was refused, and has changed something"
            return None
        assert _copy(trusted) == before
        self._check(trusted, after)
        return after

    def _check(self, before: Trusted, after: Trusted) -> None:
        assert after.roots[: len(before.roots)] == before.roots
        assert after.root_version == before.root_version + len(after.roots) - len(before.roots)
        if before.targets and after.targets:
            same_root = after.root_version == before.root_version
            assert not same_root or after.targets.version >= before.targets.version
        assert verify.in_force(after, NOW).keys() <= after.configs.keys()
        if after.targets:  # what is kept is what comes back
            files = {path: config.raw for path, config in after.configs.items()}
            stored = Stored(after.roots, after.targets.raw, files, after.refill, HOST.digest)
            assert verify.restore(self.director.first_root, stored, HOST) == after


def _copy(trusted: Trusted) -> object:
    return (trusted.roots, trusted.targets, dict(trusted.configs), trusted.refill)


class AnswerBytes(_Answers):
    """The bytes of a ClientGetConfigsResponse. Only what the director has signed is taken."""

    def seeds(self) -> list[bytes]:
        whole = self.director.answer()
        listed = self.director.answer(target_files=[])
        expired = pb.ClientGetConfigsResponse(config_status=pb.CONFIG_STATUS_EXPIRED)
        wishes = pb.ClientGetConfigsResponse(suggested_interval_seconds=60, retry_after_seconds=9)
        found = (self.older, whole, listed, expired, wishes, pb.ClientGetConfigsResponse())
        return [each.SerializeToString() for each in found]

    def run(self, data: bytes) -> None:
        try:
            answer = pb.ClientGetConfigsResponse.FromString(data)
        except DecodeError:  # gRPC makes a status of it
            return
        for trusted in (self.new, self.held):
            after = self.take(trusted, answer)
            if after:
                assert all(config.raw == _FILES[path] for path, config in after.configs.items())


class SignedAnswer(_Answers):
    """`root {...}`, `targets {...}`: of any content, signed by the director's keys. A line each."""

    def seeds(self) -> list[bytes]:
        director = self.director
        root = b"root " + signed_part(director.roots[1])
        targets = b"targets " + signed_part(director.targets)
        older = b"targets " + signed_part(self.older.targets)
        return [targets, older, root, lines(root, targets), b"file {}"]

    def run(self, data: bytes) -> None:
        roots, targets, files = [], b"", dict(_FILES)
        for line in split(data):
            word, _space, text = line.partition(b" ")
            if word == b"root":
                # By the keys of both roots, so that the older and the newer vouch for it
                signers = [*self._first_signers, *self.director.signers["root"]]
                roots.append(sign(text, signers))
            elif word == b"targets":
                targets = sign(text, self.director.signers["targets"])
            elif word == b"file":
                files = dict.fromkeys(files, text)
        whole = pb.ClientGetConfigsResponse(
            roots=roots,
            targets=targets,
            target_files=[pb.File(path=path, raw=raw) for path, raw in files.items()],
            client_configs=list(files),
        )
        one = pb.ClientGetConfigsResponse(
            roots=roots,
            targets=targets,
            target_files=[pb.File(path=NO_UDP6, raw=files[NO_UDP6])],
            client_configs=[NO_UDP6],
        )
        only_roots = pb.ClientGetConfigsResponse(roots=roots)
        for trusted in (self.new, self.held):
            for answer in (whole, one, only_roots):
                self.take(trusted, answer)
