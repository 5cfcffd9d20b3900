# SPDX-License-Identifier: GPL-3.0-or-later
"""Who polls: the last request of each host, as it came.

Live are those that were heard within the TTL. The others are remembered for as long as they have a
token, so that somebody can be told of them.

No lock: entries are replaced as a whole, and dict operations are atomic. Only `sweep`, which one
thread calls, takes entries out. Requests stay serialized, for a fleet of parsed messages would take
ten times the memory, and whoever looks at them parses them then.
"""

from __future__ import annotations

from typing import Container, Iterable

from btfleet.config.v1.config_pb2 import Client, ClientGetConfigsRequest

MAX_CLIENTS = 100000
MAX_BYTES = 256 << 20
# What is kept of one host; a longer request is cut to what identifies it
MAX_REQUEST = 64 * 1024
# Cuts of a full table take out so much, so that not every sweep has to
_EVICTED = 16


class Entry:
    """A host's last request. `snapshot` is the one by which it is up to date."""

    __slots__ = ("last_seen", "products", "request", "snapshot")

    def __init__(self, request: bytes, products: frozenset[str], last_seen: float) -> None:
        self.request, self.products, self.last_seen = request, products, last_seen
        self.snapshot: object = None


class Clients:
    """Who was heard, by host."""

    def __init__(
        self, ttl_seconds: float, most: int = MAX_CLIENTS, most_bytes: int = MAX_BYTES
    ) -> None:
        self._ttl, self._most, self._most_bytes = ttl_seconds, most, most_bytes
        self._entries: dict[str, Entry] = {}
        self._products: dict[frozenset[str], frozenset[str]] = {}
        self.get = self._entries.get

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._entries)

    def is_live(self, entry: Entry, now: float) -> bool:
        """Whether a host was heard within the TTL."""
        return now - entry.last_seen <= self._ttl

    def heard(
        self, host: str, raw: bytes, client: Client, products: frozenset[str], now: float
    ) -> Entry | None:
        """Keeps a host's request; None where there is no room for one more host until the sweep."""
        if len(self._entries) >= self._most and host not in self._entries:
            return None
        if len(self._products) < self._most:  # most hosts ask for the same: keep it once
            products = self._products.setdefault(products, products)
        entry = Entry(raw if len(raw) <= MAX_REQUEST else _cut(client), products, now)
        self._entries[host] = entry
        return entry

    def sweep(self, now: float, known: Container[str]) -> None:
        """Takes out who is neither live nor `known`, and the oldest where there are too many."""
        kept_ones = []
        # copy() is one step; a list of items() makes a tuple for each, and others run in between
        for host, entry in self._entries.copy().items():
            is_live = self.is_live(entry, now)
            if not is_live:
                entry.snapshot = None  # or who stays away would keep an old one in memory
            if is_live or host in known:
                kept_ones.append((entry.last_seen, host, len(entry.request)))
            else:
                self._entries.pop(host, None)
        total = sum(size for _seen, _host, size in kept_ones)
        if len(kept_ones) < self._most and total <= self._most_bytes:
            return
        kept_ones.sort()
        count, kept = len(kept_ones), self._most - max(1, self._most // _EVICTED)
        for _seen, host, size in kept_ones:
            if count <= kept and total <= self._most_bytes:
                break
            self._entries.pop(host, None)
            count, total = count - 1, total - size

    def live(self, now: float) -> Iterable[Client]:
        """The clients that polled within the TTL, with `last_seen` set."""
        for _host, entry in sorted(self._entries.copy().items()):
            if self.is_live(entry, now):
                yield client_of(entry)

    def count(self, now: float, product: str | None = None) -> int:
        """How many are live (and ask for a product)."""
        return sum(
            self.is_live(entry, now) and (product is None or product in entry.products)
            for entry in self._entries.copy().values()
        )


def client_of(entry: Entry) -> Client:
    """What a host said, with `last_seen` set."""
    client = ClientGetConfigsRequest.FromString(entry.request).client
    client.last_seen = int(entry.last_seen)
    return client


def _cut(client: Client) -> bytes:
    """Who it is and what it holds, without its lists."""
    kept = Client(
        id=client.id,
        is_agent=client.is_agent,
        is_tracer=client.is_tracer,
        is_updater=client.is_updater,
        products=client.products,
    )
    kept.state.root_version = client.state.root_version
    kept.state.targets_version = client.state.targets_version
    kept.state.has_error = client.state.has_error
    kept.state.error = client.state.error
    kept.health.status = f"the request has more than {MAX_REQUEST} bytes and is not kept"
    return ClientGetConfigsRequest(client=kept).SerializeToString()
