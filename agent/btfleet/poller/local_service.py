# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent answers on its Unix socket (protos/btfleet/agent/v1/agent.proto)."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Callable, Iterator, NoReturn

import grpc
from google.protobuf import empty_pb2

from btfleet._kernel.conntrack import reading
from btfleet._kernel.conntrack.flow import LIVE_STATE, Flow, to_dict
from btfleet._kernel.conntrack.table import Filter
from btfleet._kernel.errors import LoaderError, TrackerError
from btfleet.agent.v1 import agent_pb2 as pb
from btfleet.agent.v1 import agent_pb2_grpc
from btfleet.poller.errors import SettingsError
from btfleet.poller.maps import Maps

# Flows in one message of a dump: some 50 kB
_BATCH = 512
# Dumps may be read slowly, and look-ups must find a thread all the same
_THREADS = 8
_DUMPS = 4
_MAX_REQUEST = 64 * 1024
_MODE = 0o660


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """The three calls."""

    def __init__(self, get_state: Callable[[], pb.AgentState], maps: Maps) -> None:
        self._get_state = get_state
        self._maps = maps
        self._dumps = threading.BoundedSemaphore(_DUMPS)

    def GetState(  # noqa: N802 the proto's name
        self,
        request: empty_pb2.Empty,  # noqa: ARG002 gRPC passes both
        context: grpc.ServicerContext,  # noqa: ARG002 the same
    ) -> pb.AgentState:
        """What the agent holds and does."""
        return self._get_state()

    def Lookup(  # noqa: N802 the proto's name
        self, request: pb.LookupRequest, context: grpc.ServicerContext
    ) -> pb.Translation:
        """What a connection really is."""
        ends = request.tuple
        try:
            flow = self._maps.lookup(
                request.netns,
                request.zone,
                request.protocol,
                (ends.src, ends.sport, ends.dst, ends.dport),
            )
        except (TrackerError, OSError) as exc:
            _abort(context, exc)
        if flow is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "the connection is not translated")
        return translation(flow)

    def Dump(  # noqa: N802 the proto's name
        self, request: pb.DumpRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Translations]:
        """All translations, or those that match, some hundred a message."""
        if not self._dumps.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{_DUMPS} dumps are being read already: wait until one is done",
            )
        try:
            flows = self._maps.flows(_states(request.state), _filter(request))
            if request.limit:
                flows = islice(flows, request.limit)
            while context.is_active():
                batch = [translation(flow) for flow in islice(flows, _BATCH)]
                if not batch:
                    return
                yield pb.Translations(translations=batch)
        except (TrackerError, OSError) as exc:
            _abort(context, exc)
        finally:
            self._dumps.release()


def _abort(context: grpc.ServicerContext, exc: Exception) -> NoReturn:
    if isinstance(exc, OSError):
        context.abort(grpc.StatusCode.INTERNAL, f"the kernel refused to read a map ({exc})")
    if isinstance(exc, LoaderError):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(exc))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))


def _states(text: str) -> list[str]:
    if text == "all":
        return list(reading.MAPS)
    if text and text not in reading.MAPS:
        raise TrackerError(f"state is {text!r}, needed: {', '.join(reading.MAPS)} or all")
    return [text or LIVE_STATE]


def _filter(request: pb.DumpRequest) -> Filter:
    return Filter.parse(
        request.netns or None,
        request.address or None,
        request.port or None,
        request.protocol or None,
    )


def translation(flow: Flow) -> pb.Translation:
    """The message of a flow."""
    names = to_dict(flow)
    return pb.Translation(
        netns=flow.netns,
        zone=flow.zone,
        zone_dir=flow.zone_dir or "",
        family=str(names["family"]),
        protocol=str(names["protocol"]),
        orig=_tuple(flow.orig),
        reply=_tuple(flow.reply),
        state=flow.state,
        closed_seconds_ago=flow.closed_seconds_ago or 0,
        netns_gone=flow.netns_gone,
    )


def _tuple(ends: tuple[str, int, str, int]) -> pb.Tuple:
    src, sport, dst, dport = ends
    return pb.Tuple(src=src, sport=sport, dst=dst, dport=dport)


def serve(path: str, service: AgentService) -> grpc.Server:
    """Starts answering on a Unix socket of mode 0660; raises SettingsError.

    To be called before other threads run: the process's umask is another one for a moment.
    """
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="local"),
        options=[
            ("grpc.max_receive_message_length", _MAX_REQUEST),
            ("grpc.so_reuseport", 0),
        ],
    )
    agent_pb2_grpc.add_AgentServiceServicer_to_server(service, server)
    umask = os.umask(0o777 & ~_MODE)
    try:
        bound = server.add_insecure_port(f"unix:{path}")
    except (RuntimeError, OSError) as exc:
        raise SettingsError(
            f"cannot listen on {path} ({exc}): see that its folder is there and ours"
        ) from None
    finally:
        os.umask(umask)
    if not bound:
        raise SettingsError(f"cannot listen on {path}: see that its folder is there and ours")
    os.chmod(path, _MODE)
    server.start()
    return server
