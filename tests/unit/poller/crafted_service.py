# SPDX-License-Identifier: GPL-3.0-or-later
"""A config service that says whatever a test wants, over real gRPC and TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn

import grpc
from btfleet.config.v1 import config_pb2 as pb
from btfleet.config.v1 import config_pb2_grpc
from google.protobuf import empty_pb2

from tests.unit.service.certificates import Authority

Answer = Callable[[pb.ClientGetConfigsRequest, grpc.ServicerContext], pb.ClientGetConfigsResponse]


class CraftedService(config_pb2_grpc.ConfigServiceServicer):
    """`answer` decides. `requests` and `tokens` are what was heard."""

    def __init__(self, answer: Answer, token: str = "secret") -> None:  # noqa: S107
        self.answer = answer
        self.token = token
        self.authority = Authority()
        self.requests: list[pb.ClientGetConfigsRequest] = []
        self.port = 0
        # Set: only clients with a certificate of this authority are let in
        self.clients: Authority | None = None

    def ClientGetConfigs(  # noqa: N802 the proto's name
        self, request: pb.ClientGetConfigsRequest, context: grpc.ServicerContext
    ) -> pb.ClientGetConfigsResponse:
        heard = dict(context.invocation_metadata()).get("authorization")
        if heard != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token")
        self.requests.append(request)
        return self.answer(request, context)

    def GetConfigState(  # noqa: N802
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> NoReturn:
        raise NotImplementedError

    def ListClients(  # noqa: N802
        self, request: pb.ListClientsRequest, context: grpc.ServicerContext
    ) -> NoReturn:
        raise NotImplementedError

    def ResetConfigState(  # noqa: N802
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> NoReturn:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listens, on the same port each time."""
        certificate, key = self.authority.issue()
        pool = ThreadPoolExecutor(4)
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        config_pb2_grpc.add_ConfigServiceServicer_to_server(self, server)
        client_ca = self.clients.certificate if self.clients else None
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], client_ca, require_client_auth=client_ca is not None
        )
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()
            pool.shutdown()
