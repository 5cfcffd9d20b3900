# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to the config service: gRPC over TLS, a token for each request.

The channel is made anew after every failure, and when one of its files has changed. So a service
that came back with another certificate chain is reached at the next poll, and no waiting time of
gRPC's own is added to that of `backoff`.
"""

from __future__ import annotations

import contextlib

import grpc

from btfleet.config.v1 import config_pb2 as pb
from btfleet.config.v1 import config_pb2_grpc
from btfleet.poller.conntrack_product import Signature, signature
from btfleet.poller.errors import (
    ServiceError,
    SettingsError,
    SwitchedOff,
    TooMuchData,
    Unauthorised,
)
from btfleet.poller.settings import Settings, read
from btfleet.poller.verify import MAX_ANSWER

# Seconds for one poll, connecting included: a service that hangs or trickles is left
DEADLINE = 30.0
_MAX_TOKEN = 4096
_MAX_DETAILS = 300


class ServiceChannel:
    """One service. Used by the poll loop alone, but for `cancel`."""

    def __init__(self, settings: Settings, deadline: float = DEADLINE) -> None:
        self._settings = settings
        self._deadline = deadline
        self._channel: grpc.Channel | None = None
        self._stub: config_pb2_grpc.ConfigServiceStub | None = None
        self._files: tuple[Signature | None, ...] = ()
        self._call: grpc.Future[pb.ClientGetConfigsResponse] | None = None

    def poll(self, request: pb.ClientGetConfigsRequest) -> pb.ClientGetConfigsResponse:
        """One call; raises SettingsError or a ServiceError."""
        token = read_token(self._settings.token_file)
        try:
            self._call = self._connected().ClientGetConfigs.future(
                request,
                timeout=self._deadline,
                metadata=(("authorization", f"Bearer {token}"),),
            )
            answer: pb.ClientGetConfigsResponse = self._call.result()
        except grpc.FutureCancelledError:
            self.close()
            raise ServiceError("the poll was given up, because the agent ends") from None
        except grpc.RpcError as exc:
            self.close()
            raise explain(exc, self._settings) from None
        finally:
            self._call = None
        return answer

    def cancel(self) -> None:
        """Gives up the poll that is under way, if any. From any thread."""
        call = self._call
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """Ends the connection; the next poll makes another one."""
        if self._channel is not None:
            self._channel.close()
        self._channel = self._stub = None

    def _connected(self) -> config_pb2_grpc.ConfigServiceStub:
        settings = self._settings
        names = [settings.ca, settings.client_certificate, settings.client_key]
        files = tuple(signature(name) if name else None for name in names)
        if self._stub is None or files != self._files:
            self.close()
            self._files = files
            credentials = grpc.ssl_channel_credentials(*_read_files(settings))
            self._channel = grpc.secure_channel(settings.service, credentials, _options(settings))
            self._stub = config_pb2_grpc.ConfigServiceStub(self._channel)
        return self._stub


def _read_files(settings: Settings) -> tuple[bytes, bytes | None, bytes | None]:
    """CA, client's key and certificate; raises SettingsError."""
    advice = "deploy it with the role btfleet.conntrack.conntracker"
    ca = read(settings.ca, advice)
    if b"-----BEGIN CERTIFICATE-----" not in ca:
        raise SettingsError(f"{settings.ca} holds no certificate in PEM form: {advice}")
    if not settings.client_key:
        return ca, None, None
    return ca, read(settings.client_key, advice), read(settings.client_certificate, advice)


def _options(settings: Settings) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", MAX_ANSWER),
        # Otherwise a new channel would inherit the waiting time of the one before
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        # A firewall may forget an idle connection: it is noticed, not waited for
        ("grpc.keepalive_time_ms", 300000),
        ("grpc.keepalive_timeout_ms", 20000),
    ]
    if settings.tls_server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return options


def read_token(path: str) -> str:
    """The host's token; raises SettingsError. Read for each poll, since it may be rotated."""
    advice = "deploy the host's token with the role btfleet.conntrack.conntracker"
    with contextlib.suppress(UnicodeDecodeError):
        token = read(path, advice, _MAX_TOKEN).decode("ascii").strip()
        if token and all(33 <= ord(character) < 127 for character in token):
            return token
    raise SettingsError(f"{path} does not hold one word of ASCII: {advice}")


def explain(exc: grpc.RpcError, settings: Settings) -> ServiceError:
    """The one line for a call that failed, and what to do about it."""
    code, details = exc.code(), " ".join(str(exc.details() or "").split())[:_MAX_DETAILS]
    service = settings.service
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return SwitchedOff(
            f"{service} has remote config switched off ({details}): polling ends; restart "
            "btfleet-agent.service when it is on again"
        )
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return Unauthorised(
            f"{service} does not take the token in {settings.token_file} ({details}): deploy the "
            "token that the service knows"
        )
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return Unauthorised(
            f"{service} says that the token in {settings.token_file} is not that of "
            f"{settings.host} ({details}): deploy this host's own token"
        )
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServiceError(
            f"{service} has not answered in time ({details}): look at the service and the network"
        )
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return TooMuchData(
            f"endless data: {service} sent more than {MAX_ANSWER} bytes ({details}): look at what "
            "answers there"
        )
    if code == grpc.StatusCode.UNAVAILABLE:
        return ServiceError(
            f"{service} is not to be reached ({details}): see that it runs, that the network lets "
            f"us through, and that its certificate is signed by {settings.ca}"
        )
    name = code.name if code is not None else "unknown"
    return ServiceError(f"{service} refused the poll with {name} ({details}): see its log")
