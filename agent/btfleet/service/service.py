# SPDX-License-Identifier: GPL-3.0-or-later
"""The gRPC side: who calls, and the methods of ConfigService.

A call's token is looked at before its request is read: a caller without one gets no thread of the
pool to wait in.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator

import grpc
from google.protobuf.message import DecodeError

from btfleet.config.v1 import config_pb2
from btfleet.config.v1.config_pb2 import (
    ClientGetConfigsRequest,
    ClientGetConfigsResponse,
    ListClientsRequest,
)
from btfleet.poller.log_limit import LogLimit
from btfleet.service import fleet
from btfleet.service import poll as poll_
from btfleet.service.clients import Clients
from btfleet.service.errors import Refused
from btfleet.service.metrics import Metrics
from btfleet.service.refresh import Refresher
from btfleet.service.snapshot import UP_TO_DATE, MissingRoots
from btfleet.service.state import service_state
from btfleet.service.strangers import Strangers
from btfleet.service.tokens import HOST, OPERATOR, Identity, TokenFile, token_of

logger = logging.getLogger(__name__)

NAME = config_pb2.DESCRIPTOR.services_by_name["ConfigService"].full_name
# A call that has waited for a thread for so long is sent away: the queue grows faster than it is
# worked off
BUSY_SECONDS = 1.0
RETRY_AFTER_SECONDS = (5, 15)

Code = grpc.StatusCode


class Rejected(Exception):
    """A call's end: status code and text, which names what was wrong."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Pool(ThreadPoolExecutor):
    """A thread pool whose jobs can tell how long they waited in its queue."""

    _local = threading.local()

    def submit(self, job: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._timed, time.monotonic(), job, args, kwargs)

    def _timed(self, submitted: float, job: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._local.waited = time.monotonic() - submitted
        return job(*args, **kwargs)

    @classmethod
    def waited(cls) -> float:
        """Seconds that the job of this thread waited."""
        return getattr(cls._local, "waited", 0.0)


class ConfigService(grpc.GenericRpcHandler):
    """The methods, by their full names. What they answer is serialized already."""

    def __init__(
        self,
        refresher: Refresher,
        tokens: TokenFile,
        clients: Clients,
        metrics: Metrics,
        enabled: bool = True,
    ) -> None:
        self._refresher, self._tokens, self._clients = refresher, tokens, clients
        self._metrics, self._enabled = metrics, enabled
        self._started_at = int(time.time())
        self._refused = LogLimit()
        self._strangers = Strangers(metrics)
        # One a caller, not one a call
        self._handlers: dict[Identity, grpc.RpcMethodHandler[Any, Any]] = {}
        self._methods: dict[str, Callable[[Identity], grpc.RpcMethodHandler[Any, Any]]] = {
            f"/{NAME}/ClientGetConfigs": self._poll_handler,
            f"/{NAME}/GetConfigState": functools.partial(self._operator_handler, self.state),
            f"/{NAME}/ListClients": functools.partial(self._operator_handler, self.list_clients),
            f"/{NAME}/ResetConfigState": functools.partial(self._operator_handler, self.reset),
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """gRPC's question for a call's handler."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        is_poll = method == self._poll_handler
        try:
            if is_poll and not self._enabled:
                raise Rejected(
                    Code.UNIMPLEMENTED, "remote config is switched off here: stop polling"
                )
            return method(self._identify(handler_call_details.invocation_metadata))
        except Rejected as exc:
            if is_poll:
                self._count(exc.code)
            return self._rejecting(exc)

    def poll(self, identity: Identity, raw: bytes, now: float) -> tuple[str, bytes]:
        """The result (as in metrics) and the serialized answer to a poll; raises Rejected.

        A host with nothing new to say sends what it sent before. The answer to that is known while
        the snapshot is the same.
        """
        snapshot = self._refresher.snapshot
        if snapshot is None:
            raise Rejected(
                Code.UNAVAILABLE,
                "nothing was fetched from the repository yet: poll again (operators: see the "
                "config service's log)",
            )
        entry = self._clients.get(identity.name)
        if (
            entry is not None
            and entry.snapshot is snapshot
            and entry.request == raw
            and not snapshot.is_expired(now)
        ):
            entry.last_seen = now
            return UP_TO_DATE, snapshot.up_to_date
        if Pool.waited() > BUSY_SECONDS:
            return "busy", _busy()
        request = _parsed(raw)
        try:
            poll = poll_.check(request)
        except poll_.InvalidPoll as exc:
            raise Rejected(Code.INVALID_ARGUMENT, str(exc)) from None
        if identity != (HOST, poll.facts.host):
            raise Rejected(
                Code.PERMISSION_DENIED,
                f"the token is not the one of client.id {poll.facts.host!a}: "
                "every host needs its own",
            )
        entry = self._clients.heard(poll.facts.host, raw, request.client, poll.products, now)
        try:
            result, answer = snapshot.answer(poll, now)
        except MissingRoots as exc:
            raise Rejected(Code.FAILED_PRECONDITION, str(exc)) from None
        if entry is not None and result == UP_TO_DATE:
            entry.snapshot = snapshot
        return result, answer

    def state(self, _raw: bytes) -> bytes:
        """The serialized answer to GetConfigState."""
        now = time.time()
        return service_state(
            self._refresher, self._clients.live(now), self._started_at, now
        ).SerializeToString()

    def list_clients(self, raw: bytes) -> bytes:
        """The serialized answer to a ListClientsRequest; raises Rejected."""
        try:
            request = ListClientsRequest.FromString(raw)
        except DecodeError:
            raise Rejected(
                Code.INVALID_ARGUMENT, "the request is no ListClientsRequest of btfleet.config.v1"
            ) from None
        return fleet.page(
            request,
            self._tokens.host_names,
            self._clients,
            self._refresher.snapshot,
            self._started_at,
            time.time(),
        ).SerializeToString()

    def reset(self, _raw: bytes) -> bytes:
        """Fetches everything anew, from the first roots on; raises Rejected, with all as it was."""
        try:
            self._refresher.refresh(from_roots=True)
        except Refused as exc:
            raise Rejected(Code.UNAVAILABLE, f"all is as it was: {exc}") from None
        snapshot = self._refresher.snapshot
        if snapshot is not None:
            self._metrics.show_snapshot(snapshot)
        logger.info("an operator had everything fetched anew from the first roots on")
        return config_pb2.ResetStateConfigResponse().SerializeToString()

    def _identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        headers = [value for key, value in metadata if key == "authorization"]
        if len(headers) != 1 or not (token := token_of(headers[0])):
            raise Rejected(
                Code.UNAUTHENTICATED, "no token, needed: the metadata `authorization: Bearer TOKEN`"
            )
        identity = self._tokens.identify(token)
        if identity is None:
            # It may be newer than what we read
            self._tokens.reload_if_changed()
            identity = self._tokens.identify(token)
        if identity is None:
            raise Rejected(
                Code.UNAUTHENTICATED,
                "the token is unknown: put its SHA-256 into the config service's tokens file, "
                "or the right token on this host",
            )
        return identity

    def _poll_handler(self, identity: Identity) -> grpc.RpcMethodHandler[Any, Any]:
        handler = self._handlers.get(identity)
        if handler is None:
            if len(self._handlers) > len(self._tokens):  # of hosts that are gone
                self._handlers.clear()
            handler = grpc.unary_unary_rpc_method_handler(functools.partial(self._answer, identity))
            self._handlers[identity] = handler
        return handler

    def _answer(self, identity: Identity, raw: bytes, context: grpc.ServicerContext) -> bytes:
        started = time.perf_counter()
        try:
            result, answer = self.poll(identity, raw, time.time())
        except Rejected as exc:
            self._count(exc.code)
            self._log_refused(identity, exc)
            context.abort(exc.code, str(exc))
        except Exception:
            self._metrics.polls["internal"].inc()
            logger.exception("a poll of %s failed: a defect of the config service", identity.name)
            context.abort(Code.INTERNAL, "a defect of the config service: see its log")
        self._metrics.polls[result].inc()
        self._metrics.poll_seconds.observe(time.perf_counter() - started)
        return answer

    def _operator_handler(
        self, method: Callable[[bytes], bytes], identity: Identity
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if identity.kind != OPERATOR:
            raise Rejected(Code.PERMISSION_DENIED, "the token is a host's, needed: an operator's")

        def call(raw: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return method(raw)
            except Rejected as exc:
                context.abort(exc.code, str(exc))

        return grpc.unary_unary_rpc_method_handler(call)

    def _log_refused(self, identity: Identity, error: Rejected) -> None:
        line = self._refused.take(f"a poll with the token of {identity.name} was refused: {error}")
        if line:
            logger.warning("%s", line)

    def _count(self, code: grpc.StatusCode) -> None:
        self._metrics.polls[code.name.lower()].inc()

    def _rejecting(self, error: Rejected) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that ends a call without waiting for its request."""

        def end(_requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            if error.code == Code.UNAUTHENTICATED:
                self._strangers.refuse(str(error), context)
            context.abort(error.code, str(error))

        return grpc.stream_unary_rpc_method_handler(end)


def _parsed(raw: bytes) -> ClientGetConfigsRequest:
    try:
        return ClientGetConfigsRequest.FromString(raw)
    except DecodeError:
        raise Rejected(
            Code.INVALID_ARGUMENT,
            "the request is no ClientGetConfigsRequest of btfleet.config.v1 (or has text that is "
            "not UTF-8)",
        ) from None


def _busy() -> bytes:
    seconds = random.randint(*RETRY_AFTER_SECONDS)  # noqa: S311 - spreads load, no secret
    return ClientGetConfigsResponse(retry_after_seconds=seconds).SerializeToString()
