# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository behind a real HTTPS server, which at times is a bad one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from btfleet.service.errors import Refused
from btfleet.service.fetch import Budget, Fetcher, FolderSource, Limits
from btfleet.service.settings import Settings
from tuf.ngclient import Updater

from tests.unit.service.certificates import Authority
from tests.unit.service.conftest import Opener
from tests.unit.service.simulator import Simulator, path_of
from tests.unit.service.test_attacks import FIRST, refuse

Trick = Callable[["Handler"], bool]
QUICK = Limits(seconds=20, request_seconds=0.25, idle_seconds=0.2, grace_seconds=0.1)


class Handler(SimpleHTTPRequestHandler):
    """Serves the repository's folder; `trick` may answer in its place."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if not self.server.trick(self):
            super().do_GET()

    def start(self, length: int | None) -> None:
        """The head of a good answer."""
        self.send_response(200)
        self.send_header("Content-Length" if length is not None else "Connection", f"{length}")
        self.end_headers()

    def send_error(self, code: int, *_arguments: object) -> None:
        """Without closing the connection, as good servers do it."""
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Knows what was asked for, and how many connections there were."""

    daemon_threads = True

    def __init__(self, folder: Path, context: ssl.SSLContext) -> None:
        self.folder, self.context = folder, context
        self.asked: list[str] = []
        self.connections = 0
        self.trick: Trick = lambda _handler: False
        super().__init__(("127.0.0.1", 0), self._handler)

    def _handler(self, *arguments: object) -> Handler:
        return Handler(*arguments, directory=str(self.folder))  # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, object]:
        sock, address = super().get_request()
        self.connections += 1
        return self.context.wrap_socket(sock, server_side=True), address

    def handle_error(self, *_arguments: object) -> None:
        """Clients that hang up are part of the tests."""


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(simulator: Simulator, tmp_path: Path, authority: Authority) -> Iterator[Server]:
    authority.write(tmp_path / "web.pem", tmp_path / "web.key")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "web.pem", tmp_path / "web.key")
    found = Server(simulator.folder, context)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def settings(settings: Settings, server: Server, tmp_path: Path) -> Settings:
    """The same service, with the web server for a repository."""
    address = f"https://127.0.0.1:{server.server_port}"
    return replace(settings, repository=address, repository_ca=str(tmp_path / "ca.pem"))


def test_everything_comes_over_one_connection(server: Server, opened: Opener) -> None:
    refresher = opened()
    assert refresher.refresh()
    assert server.connections == 1
    assert sum(path.endswith(".first") for path in server.asked) == 1


def test_files_that_are_in_the_store_are_not_fetched_again(
    simulator: Simulator, server: Server, opened: Opener
) -> None:
    opened().refresh()
    simulator.put(path_of("second"), {"tcpv6_enabled": False})
    simulator.publish()
    server.asked.clear()
    opened().refresh()
    files = [path for path in server.asked if "/targets/" in path]
    assert len(files) == 1
    assert files[0].endswith(".second")


def test_a_connection_that_the_server_closed_meanwhile_is_made_anew(
    server: Server, opened: Opener
) -> None:
    def hang_up_afterwards(handler: Handler) -> bool:
        handler.close_connection = True
        return False

    server.trick = hang_up_afterwards
    assert opened().refresh()


def test_a_certificate_of_another_authority_is_refused(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(Authority().certificate)
    refuse(opened(), "unreachable", "certificate")


def test_a_ca_file_that_is_none_is_named(opened: Opener, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"nothing")
    refuse(opened(), "unreachable", "ca.pem is no file with CA certificates")


def test_a_server_that_is_down(server: Server, opened: Opener) -> None:
    refresher = opened()
    server.socket.close()
    refuse(refresher, "unreachable", "director's")


def test_an_answer_that_stops_in_the_middle(server: Server, opened: Opener) -> None:
    def stop(handler: Handler) -> bool:
        handler.start(1000)
        handler.wfile.write(b"{")
        handler.close_connection = True
        return True

    refresher = opened()
    server.trick = stop
    refuse(refresher, "unreachable", "999 bytes before the end it stopped")


@pytest.mark.parametrize("status", [500, 503, 401])
def test_a_server_that_fails(server: Server, opened: Opener, status: int) -> None:
    def fail(handler: Handler) -> bool:
        handler.send_error(status)
        return True

    refresher = opened()
    server.trick = fail
    refuse(refresher, "unreachable", f"HTTP status {status}")


def test_redirects_within_https_are_followed(server: Server, opened: Opener) -> None:
    def elsewhere(handler: Handler) -> bool:
        if "/moved" in handler.path:
            handler.path = handler.path.replace("/moved", "")
            return False
        handler.send_response(302)
        handler.send_header("Location", f"/moved{handler.path}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.trick = elsewhere
    assert opened().refresh()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://127.0.0.1/x", "needed: to an https:// address"),
        ("file:///etc/passwd", "needed: to an https:// address"),
        ("/again", "more than 3 redirects"),
    ],
)
def test_redirects_that_are_refused(
    server: Server, opened: Opener, location: str, words: str
) -> None:
    def elsewhere(handler: Handler) -> bool:
        handler.send_response(301)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    refresher = opened()
    server.trick = elsewhere
    refuse(refresher, "unreachable", words)


def endless(handler: Handler) -> bool:
    """Without a length, and for ever."""
    handler.start(None)
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" " * 65536)
    handler.close_connection = True
    return True


def silent(handler: Handler) -> bool:
    """Takes the question and says nothing."""
    handler.server.released.wait(5)  # type: ignore[attr-defined]
    handler.close_connection = True
    return True


def trickle(handler: Handler) -> bool:
    """A byte at a time, each before a time-out would strike."""
    handler.start(1000)
    with contextlib.suppress(OSError):
        while not handler.server.released.wait(0.02):  # type: ignore[attr-defined]
            handler.wfile.write(b" ")
    handler.close_connection = True
    return True


def trickling_head(handler: Handler) -> bool:
    """The same before the first byte of content."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not handler.server.released.wait(0.02):  # type: ignore[attr-defined]
            handler.wfile.write(b"y")
    handler.close_connection = True
    return True


@pytest.mark.parametrize("file", ["timestamp.json", ".first"])
@pytest.mark.parametrize(
    ("trick", "reason"),
    [
        (endless, "endless_data"),
        (silent, "slow_retrieval"),
        (trickle, "slow_retrieval"),
        (trickling_head, "slow_retrieval"),
    ],
)
def test_answers_without_end(
    simulator: Simulator, server: Server, opened: Opener, trick: Trick, reason: str, file: str
) -> None:
    opened().refresh()
    # What has no end is cut off by its size, on a busy machine as well
    refresher = opened() if trick is endless else opened(QUICK)
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    server.released = threading.Event()  # type: ignore[attr-defined]
    server.trick = lambda handler: handler.path.endswith(file) and trick(handler)
    try:
        refuse(refresher, reason)
    finally:
        server.released.set()  # type: ignore[attr-defined]
    server.trick = lambda _handler: False
    assert opened().refresh()


def test_the_whole_refresh_has_a_deadline(server: Server, opened: Opener) -> None:
    """Also if every single request is quick enough."""

    def slow(_handler: Handler) -> bool:
        threading.Event().wait(0.1)
        return False

    refresher = opened(QUICK._replace(seconds=0.3))
    server.trick = slow
    refuse(refresher, "slow_retrieval")


def test_a_handshake_that_never_ends(opened: Opener, settings: Settings) -> None:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        opened.settings = replace(settings, repository=f"https://127.0.0.1:{mute.getsockname()[1]}")
        refuse(opened(QUICK), "slow_retrieval", "did not come in time")


def test_a_switch_of_generations_in_the_middle_is_survived(
    simulator: Simulator, server: Server, opened: Opener
) -> None:
    """The director's files are of one generation, the config repository's of the next."""
    refresher = opened()
    refresher.refresh()
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    simulator.switch_to(1)

    def switch(handler: Handler) -> bool:
        if handler.path == "/current/config/timestamp.json":
            simulator.switch_to(2)
        return False

    server.trick = switch
    assert refresher.refresh()
    assert refresher.snapshot
    assert refresher.snapshot.targets_version == 2


def test_a_mixture_that_stays_is_refused(
    simulator: Simulator, server: Server, opened: Opener
) -> None:
    refresher = opened()
    refresher.refresh()
    simulator.put(FIRST, {"tcpv6_enabled": False}, version=2)
    simulator.publish()
    shutil.rmtree(simulator.current / "config")
    shutil.copytree(simulator.folder / "generations/1/config", simulator.current / "config")
    server.asked.clear()
    refuse(refresher, "mix_and_match")
    # one look whether anything has changed, then twice the whole
    assert server.asked.count("/current/director/timestamp.json") == 3


def test_python_tuf_takes_what_the_tests_publish(simulator: Simulator, tmp_path: Path) -> None:
    """The simulator is no oracle for itself: a plain client reads it as well."""
    source = FolderSource(str(simulator.folder))
    for name, repository in simulator.repositories.items():
        updater = Updater(
            str(tmp_path / name),
            f"{source.base}{name}",
            str(tmp_path),
            f"{source.base}targets",
            Fetcher(source, Budget(Limits()), name, 1),
            bootstrap=repository.roots[1],
        )
        target = updater.get_targetinfo(FIRST)
        assert target
        assert Path(updater.download_target(target)).read_bytes() == b'{"udpv6_enabled": false}'


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="publish first"):
        FolderSource(str(tmp_path / "nothing"))
