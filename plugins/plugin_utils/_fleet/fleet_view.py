# Copyright: (c) 2026, btfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config service's live view of the fleet: what it knows of each host that has a token.

    service = Service("config.example.org:8443", ca="ca.pem", token=read_token("operator.token"))
    rows = fetch(service)                          # FleetViewError: one line, with what to do

`fetch` gives one dict a host, sorted by `host`, of plain data only (dict, list, str, int, float,
bool, None), so that it can be kept as JSON. All keys are always there:

    host                     str        the host's name in the fleet: what its token proves
    state                    str        one of STATES, below
    problems                 list[str]  why the state is not `applied` or `pending`; a line each
    presence                 str        `active` (heard within the service's client_ttl_seconds),
                                        `stale` (heard, but not lately) or `unheard` (it has a
                                        token, and was not heard since the service started)
    last_seen                int|None   of its last poll; None if unheard
    as_of                    int        when the service said all this, by its own clock
    service_started_at       int        what the service knows of hosts, it has heard since then
    served_root_version      int        the newest director root that is served; 0: none yet
    served_targets_version   int        the same for the director's targets
    served_expired           bool       whether the director's metadata have expired there

and what the host said of itself in its last poll; empty, 0 or None where it is unheard:

    version                  str|None   of the agent
    products                 list[str]  sorted
    groups                   list[str]  sorted
    labels                   dict       str to str
    root_version             int        the newest director root that it trusts
    targets_version          int        the director's targets that it holds; 0: none
    error                    str|None   why its last update failed
    health                   dict|None  healthy (bool), status, last_error (str|None), started_at
                                        (int|None), components: name to {healthy, status,
                                        last_error}; None where it says nothing of its health
    configs                  list[dict] by path: path, product, id (str), version (int), phase
                                        (a word of config_state.PHASES: UNKNOWN, RECEIVED, APPLYING,
                                        APPLIED, FAILED), reason, fingerprint (str|None),
                                        changed_at (int|None)
    effective                list[dict] by key: key (PRODUCT.key), value, owner (`base`, a path, or
                                        None where nobody knows)

Times are Unix seconds, of the host's clock in `health` and `configs`, of the service's elsewhere.
`configs` and `effective` have the names that config_state_info gives on the host (`applied` there),
so that the two can be compared.

The names of hosts are the operator's. All else below `version` is what a host says: any text
without lone surrogates, of bounded length, and never a template. `effective[].value` is what the
host's JSON means where that is a scalar or a list of scalars, and the JSON text itself otherwise.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any, Callable, NoReturn

from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet import (
    fleet_messages,
    fleet_rows,
)
from ansible_collections.btfleet.conntrack.plugins.plugin_utils._fleet.fleet_messages import (
    FleetViewError,
)

try:
    # What OpenSSL and the network say comes as the call's error; gRPC would print it as well
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    HAS_GRPC = True
except ImportError:
    HAS_GRPC = False

STATES = fleet_rows.STATES
LIST_CLIENTS = "/btfleet.config.v1.ConfigService/ListClients"
# A page has about 1 MB; one host's row at most 64 kB more
MAX_PAGE_BYTES = 8 << 20
_MAX_TOKEN = 4096
_MAX_DETAILS = 300

__all__ = ["STATES", "FleetViewError", "Service", "fetch", "read_token"]


@dataclass(frozen=True)
class Service:
    """Where the config service is, and who asks it. `ca` and `client_…` are paths.

    `tls_server_name` is for certificates that have another name than the address;
    `client_certificate` and `client_key` for a service that asks for mutual TLS. `deadline` is
    seconds for all of it.
    """

    address: str
    ca: str
    token: str = field(repr=False)
    tls_server_name: str = ""
    client_certificate: str = ""
    client_key: str = ""
    deadline: float = 30.0


def fetch(service: Service) -> list[dict[str, Any]]:
    """What the service knows of each host, as above; raises FleetViewError."""
    if not HAS_GRPC:
        raise FleetViewError(
            f"the library grpcio is missing for {fleet_messages.python()}: install "
            f"{fleet_messages.NEEDED} there"
        )
    messages = fleet_messages.load()
    token = checked_token(service.token, "the operator's token")
    if not service.address:
        raise FleetViewError("no config service is named, needed: HOST:PORT")
    credentials = grpc.ssl_channel_credentials(
        _read(service.ca, "the CA's certificate", needed=b"-----BEGIN CERTIFICATE-----"),
        _read(service.client_key, "the client's key") if service.client_key else None,
        _read(service.client_certificate, "the client's certificate")
        if service.client_certificate
        else None,
    )
    with grpc.secure_channel(service.address, credentials, _options(service)) as channel:
        call = channel.unary_unary(
            LIST_CLIENTS,
            request_serializer=messages.ListClientsRequest.SerializeToString,
            response_deserializer=messages.ListClientsResponse.FromString,
        )
        ends = time.monotonic() + service.deadline
        metadata = (("authorization", f"Bearer {token}"),)

        def ask(page_token: str) -> Any:
            try:
                return call(
                    messages.ListClientsRequest(page_token=page_token),
                    timeout=max(0.0, ends - time.monotonic()),
                    metadata=metadata,
                )
            except grpc.RpcError as exc:
                _fail(exc, service)

        return _all_pages(ask, service)


def read_token(path: str) -> str:
    """The token in a file; raises FleetViewError."""
    text = _read(path, "the operator's token", limit=_MAX_TOKEN).decode("ascii", "replace")
    return checked_token(text, path)


def checked_token(text: str, what: str) -> str:
    """The token without blanks around it; raises FleetViewError, which never shows it."""
    token = text.strip()
    if not token or not all(33 <= ord(character) < 127 for character in token):
        raise FleetViewError(f"{what} does not hold one word of ASCII, needed: an operator's token")
    return token


def _all_pages(ask: Callable[[str], Any], service: Service) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page_token = ""
    while True:
        page = ask(page_token)
        rows.extend(fleet_rows.row(known, page) for known in page.clients)
        if not page.next_page_token:
            return rows
        if page.next_page_token <= page_token:
            raise FleetViewError(
                f"the config service {service.address} sends the same page of hosts again: a "
                "defect of it, see its release"
            )
        page_token = page.next_page_token


def _read(path: str, what: str, needed: bytes = b"", limit: int = 1 << 20) -> bytes:
    if not path:
        raise FleetViewError(f"no file is named for {what}")
    try:
        with open(path, "rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as exc:
        raise FleetViewError(f"cannot read {what}, {path} ({exc.strerror})") from None
    if len(raw) > limit or needed not in raw:
        raise FleetViewError(f"{path} is not {what}: it has another form, or is too long")
    return raw


def _options(service: Service) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_PAGE_BYTES),
        # Each call of its own, and no waiting for what failed before
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    if service.tls_server_name:
        options.append(("grpc.ssl_target_name_override", service.tls_server_name))
    return options


def _fail(exc: Any, service: Service) -> NoReturn:
    """Raises the one line for a call that failed."""
    code, said = exc.code(), " ".join(str(exc.details() or "").split())[:_MAX_DETAILS]
    lines = {
        grpc.StatusCode.UNAVAILABLE: f"is not to be reached ({said}): see that it runs there, that "
        f"the network lets us through, and that its certificate is signed by {service.ca}",
        grpc.StatusCode.DEADLINE_EXCEEDED: f"has not answered within {service.deadline:g} s "
        f"({said}): look at the service and the network, or allow more time",
        grpc.StatusCode.UNAUTHENTICATED: f"does not take the token ({said}): use the token of an "
        "operator that its tokens file has the hash of",
        grpc.StatusCode.PERMISSION_DENIED: f"takes the token for nobody who may ask ({said}): use "
        "an operator's token, not a host's",
        grpc.StatusCode.UNIMPLEMENTED: f"cannot list the fleet ({said}): its release is too old, "
        "upgrade it",
        grpc.StatusCode.RESOURCE_EXHAUSTED: f"does not take the call now ({said}): wait, and ask "
        "again with the right token",
    }
    line = lines.get(code)
    if line is None:
        name = code.name if code is not None else "an unknown status"
        line = f"answered {name} ({said}): see its log"
    raise FleetViewError(f"the config service {service.address} {line}") from None
