# SPDX-License-Identifier: GPL-3.0-or-later
"""A client with nothing of ours but the .proto file: curl speaks HTTP/2, protoc the messages."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

from tests.unit.service.test_attacks import FIRST
from tests.unit.service.test_service import World, running, world

__all__ = ["running", "world"]  # fixtures

METHOD = "btfleet.config.v1.ConfigService/ClientGetConfigs"
REQUEST = """
client {
  id: "h1" is_agent: true products: "CONNTRACK"
  client_agent { version: "7.0.0" }
  state { root_version: 1 targets_version: %d }
}
"""


def protoc(checkout: Path, mode: str, message: str, content: bytes) -> bytes:
    """Text to a message's bytes (`encode`) or back (`decode`)."""
    words = ["-m", "grpc_tools.protoc", f"--{mode}=btfleet.config.v1.{message}", "-I", "protos"]
    command = [sys.executable, *words, "btfleet/config/v1/config.proto"]
    return subprocess.run(
        command, cwd=checkout, input=content, capture_output=True, check=True
    ).stdout


def call(world: World, checkout: Path, request: str, token: str) -> tuple[str, bytes]:
    """The answer's headers and trailers, and its message."""
    message = protoc(checkout, "encode", "ClientGetConfigsRequest", request.encode())
    ca = world.folder / "foreign-ca.pem"
    ca.write_bytes(world.authority.certificate)
    headers = ["content-type: application/grpc", "te: trailers", f"authorization: Bearer {token}"]
    command = ["curl", "--silent", "--show-error", "--http2", "--cacert", str(ca), "--data-binary"]
    command += ["@-", "--dump-header", str(world.folder / "headers"), "--max-time", "20"]
    command += [word for header in headers for word in ("--header", header)]
    command += [f"https://localhost:{world.daemon.port}/{METHOD}"]
    # Each message has a flag (not compressed) and its length before it
    frame = struct.pack("!BI", 0, len(message)) + message
    body = subprocess.run(command, input=frame, capture_output=True, check=True).stdout
    answer = b""
    if body:
        flag, length = struct.unpack("!BI", body[:5])
        answer = body[5:]
        assert (flag, length) == (0, len(answer))
    return (world.folder / "headers").read_text(), answer


def test_it_is_answered_with_the_documented_fields(running: World, checkout: Path) -> None:
    headers, answer = call(running, checkout, REQUEST % 0, "token-of-h1")
    assert "grpc-status: 0" in headers
    text = protoc(checkout, "decode", "ClientGetConfigsResponse", answer).decode()
    assert f'client_configs: "{FIRST}"' in text
    assert f'path: "{FIRST}"' in text
    assert 'raw: "{\\"udpv6_enabled\\": false}"' in text
    assert text.count("\ntargets: ") + text.startswith("targets: ") == 1


def test_up_to_date_it_gets_an_empty_message(running: World, checkout: Path) -> None:
    headers, answer = call(running, checkout, REQUEST % 1, "token-of-h1")
    assert "grpc-status: 0" in headers
    assert answer == b""


def test_with_another_hosts_token_it_is_refused(running: World, checkout: Path) -> None:
    headers, answer = call(running, checkout, REQUEST % 0, "token-of-h2")
    assert "grpc-status: 7" in headers
    assert answer == b""
