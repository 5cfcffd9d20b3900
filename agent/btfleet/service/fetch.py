# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching from a repository, within limits: the only place that reads what nobody has verified.

A `Fetcher` is what python-tuf's Updater asks for files. It reads from a source (a folder, or
https://) and stops at whatever comes first: too many bytes, too slow, too late.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import ssl
import stat
import threading
import time
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import IO, Iterator, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient import FetcherInterface

from btfleet import __version__
from btfleet._config import strict_json
from btfleet._config.errors import ConfigError
from btfleet.service.errors import Refused

CHUNK = 1 << 16
MAX_REDIRECTS = 3
MAX_NEW_ROOTS = 256

_ROOT = re.compile(r"([0-9]+)\.root\.json")


class Limits(NamedTuple):
    """What one refresh may take. The speed is a request's mean, looked at after the grace time."""

    total_bytes: int = 256 << 20
    seconds: float = 300.0
    request_seconds: float = 60.0
    idle_seconds: float = 10.0
    grace_seconds: float = 5.0
    bytes_per_second: int = 1000


class Budget:
    """What is left of a refresh's limits, over all of its requests."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes_left = limits.total_bytes
        self.deadline = time.monotonic() + limits.seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until the refresh has to end; 0 or less: it is over."""
        return self.deadline - time.monotonic()

    def check_time(self) -> None:
        """Raises SlowRetrievalError if the refresh has taken too long."""
        if self.seconds_left <= 0:
            raise SlowRetrievalError(
                f"the whole refresh took more than {self.limits.seconds:g} seconds"
            )

    def metered(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks of one request; raises where they are too many, or come too slowly."""
        limits, received, started = self.limits, 0, time.monotonic()
        for chunk in chunks:
            received += len(chunk)
            self.bytes_left -= len(chunk)
            if self.bytes_left < 0:
                raise Refused(
                    "endless_data",
                    f"more than {limits.total_bytes} bytes in one refresh, needed: fewer "
                    "(withdraw configs, or see who stands between)",
                )
            self.check_time()
            elapsed = time.monotonic() - started
            if elapsed > limits.request_seconds:
                raise SlowRetrievalError(f"more than {limits.request_seconds:g} seconds for a file")
            if elapsed > limits.grace_seconds and received < elapsed * limits.bytes_per_second:
                raise SlowRetrievalError(
                    f"{received} bytes in {elapsed:.1f} seconds, "
                    f"needed: {limits.bytes_per_second} a second"
                )
            yield chunk


class Source(Protocol):
    """Where files come from."""

    @property
    def base(self) -> str:
        """What paths below the repository's `current` are put behind; ends in a slash."""

    def chunks(self, url: str, budget: Budget) -> Iterator[bytes]:
        """A file's bytes as they come; raises DownloadHTTPError (404) if there is no such file."""

    def close(self) -> None:
        """Lets go of everything."""


class FolderSource:
    """A folder. Its link `current` is resolved once, so that no mixture is ever seen."""

    def __init__(self, folder: str) -> None:
        self.base = os.path.realpath(os.path.join(folder, "current")) + "/"
        if not os.path.isdir(self.base):
            raise Refused(
                "not_found",
                f"{os.path.join(folder, 'current')} is no folder: publish first "
                "(module btfleet.conntrack.config_repository), or correct `repository`",
            )

    def chunks(self, url: str, budget: Budget) -> Iterator[bytes]:  # noqa: ARG002 HTTPS needs it
        try:
            # A pipe or a device in a file's place must not keep us waiting
            fd = os.open(url, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DownloadHTTPError(f"there is no {url}", 404) from None
        except OSError as exc:
            raise DownloadError(f"cannot read {url} ({exc.strerror})") from None
        with os.fdopen(fd, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise DownloadError(f"{url} is no file")
            try:
                while chunk := stream.read(CHUNK):
                    yield chunk
            except OSError as exc:
                raise DownloadError(f"cannot read {url} ({exc.strerror})") from None

    def close(self) -> None:
        """Nothing is held."""


class HttpsSource:
    """A web server, over one kept connection. No proxy is used; redirects stay on https."""

    def __init__(self, address: str, ca: str | None) -> None:
        self.base = f"{address}/current/"
        self._connection: _Connection | None = None
        self._response: HTTPResponse | None = None
        self._target = ("", 0)
        self._late = False
        try:
            self._context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as exc:
            raise Refused(
                "unreachable", f"repository_ca {ca} is no file with CA certificates ({exc})"
            ) from None

    def chunks(self, url: str, budget: Budget) -> Iterator[bytes]:
        # Also while headers or a handshake trickle in, where no read of ours looks at the time
        alarm = threading.Timer(
            max(0.0, min(budget.seconds_left, budget.limits.request_seconds)), self._abort
        )
        alarm.daemon = True
        self._late = False
        alarm.start()
        try:
            yield from self._follow(url, budget)
            if self._late:  # what an ended connection leaves looks like a short answer
                raise TimeoutError
        except (OSError, HTTPException) as exc:
            self.close()
            budget.check_time()
            if self._late or isinstance(exc, TimeoutError):
                raise SlowRetrievalError(f"{url} did not come in time") from None
            raise DownloadError(f"cannot fetch {url} ({str(exc) or type(exc).__name__})") from None
        except DownloadHTTPError:
            raise
        except BaseException:
            self.close()  # what is left of the answer is not to be taken for the next one
            raise
        finally:
            alarm.cancel()

    def _follow(self, url: str, budget: Budget) -> Iterator[bytes]:
        for _hop in range(MAX_REDIRECTS + 1):
            response = self._ask(url, budget)
            if response.status == 200:
                while chunk := response.read1(CHUNK):
                    yield chunk
                if response.length:
                    raise ConnectionError(f"{response.length} bytes before the end it stopped")
                response.close()  # its connection stays, for the next one
                return
            response.read(CHUNK)
            if not response.isclosed():
                self.close()
            if response.status not in (301, 302, 303, 307, 308):
                raise DownloadHTTPError(f"{url}: HTTP status {response.status}", response.status)
            url = urljoin(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme != "https":
                raise DownloadError(f"a redirect to {url[:200]}, needed: to an https:// address")
        raise DownloadError(f"more than {MAX_REDIRECTS} redirects, the last one to {url[:200]}")

    def _ask(self, url: str, budget: Budget) -> HTTPResponse:
        parts = urlsplit(url)
        target = (parts.hostname or "", parts.port or 443)
        if self._target != target:
            self.close()
        kept = self._connection is not None
        try:
            return self._request(target, parts.path, budget)
        except (ConnectionError, HTTPException):
            self.close()
            if self._late or not kept:
                raise
        # The server had closed the kept connection meanwhile
        return self._request(target, parts.path, budget)

    def _request(self, target: tuple[str, int], path: str, budget: Budget) -> HTTPResponse:
        if self._connection is None:
            self._target = target
            self._connection = _Connection(*target, self._context, budget.limits.idle_seconds)
        headers = {"Accept-Encoding": "identity", "User-Agent": f"btfleet/{__version__}"}
        self._connection.request("GET", path, headers=headers)
        self._response = self._connection.getresponse()
        return self._response

    def _abort(self) -> None:
        self._late = True
        connection = self._connection
        if connection is not None:
            connection.abort()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        response, self._response = self._response, None
        if response is not None:
            response.close()
        if connection is not None:
            connection.close()


class _Connection(HTTPSConnection):
    """One that another thread can end at any moment, in the middle of the handshake as well."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, idle: float) -> None:
        super().__init__(host, port, context=context, timeout=idle)
        self._tls, self._idle = context, idle
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), self._idle)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._raw = raw.dup()
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise

    def abort(self) -> None:
        """Makes every read and write of the connection fail at once."""
        raw = self._raw
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        super().close()
        raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()


def open_source(repository: str, ca: str | None) -> Source:
    """The source that a setting names; raises Refused if it cannot be one."""
    if repository.startswith("https://"):
        return HttpsSource(repository, ca)
    return FolderSource(repository)


class Fetcher(FetcherInterface):
    """What one Updater fetches from one repository.

    `asked` is the name of the file that was asked for last, `got` the last metadata that came:
    with them an error can say what was wrong with what.
    """

    def __init__(self, source: Source, budget: Budget, repository: str, root_version: int) -> None:
        self._source, self._budget = source, budget
        self._repository, self._root_version = repository, root_version
        self.asked = ""
        self.got = b""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self._budget.check_time()
        self.asked = url[len(self._source.base) :]
        return self._budget.metered(self._source.chunks(url, self._budget))

    @contextlib.contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """As the interface's own, but in memory: all that is fetched is small."""
        content = io.BytesIO()
        for chunk in self.fetch(url):
            if content.tell() + len(chunk) > max_length:
                raise DownloadLengthMismatchError(
                    f"more than the {max_length} bytes that it may have"
                )
            content.write(chunk)
        content.seek(0)
        yield content

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Metadata, which has to mean the same to every reader, before anybody parses it."""
        raw = super().download_bytes(url, max_length)
        self.got = raw
        self._check_root(url)
        try:
            strict_json.loads(raw, f"{self._repository}'s {self.asked}", limit=max_length)
        except ConfigError as exc:
            raise Refused("malformed", str(exc)) from None
        return raw

    def exists(self, url: str, max_length: int) -> bool:
        """Whether there is such a file, of whatever length; does not count as asked for."""
        asked = self.asked
        try:
            super().download_bytes(url, max_length)
            found = True
        except DownloadLengthMismatchError:
            found = True
        except DownloadHTTPError:
            found = False
        self.asked = asked
        return found

    def _check_root(self, url: str) -> None:
        found = _ROOT.fullmatch(url.rpartition("/")[2])
        if found and int(found[1]) > self._root_version + MAX_NEW_ROOTS:
            raise Refused(
                "too_many_roots",
                f"the {self._repository} repository has more than {MAX_NEW_ROOTS} roots after "
                f"version {self._root_version}: give `roots.{self._repository}` a newer root, "
                "after you have made sure that it is yours",
            )
