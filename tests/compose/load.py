"""Clients that never stop asking, through every proxy that is in use, and a count of how they fare."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: What is asked, in turns: every service, an answer that takes its time, a body of some size.
PATHS = ("/", "/users/1", "/prices/tea.json", "/slow?ms=300", "/orders/1", "/bytes?n=300000")


@dataclass
class Count:
    """Of one drill."""

    requests: int = 0
    #: A connection was refused, and the client went to another proxy, as clients with two addresses do.
    moved: int = 0
    #: A kept connection was closed under the request, which was sent again on a new one, as HTTP clients do.
    repeated: int = 0
    failed: list[str] = field(default_factory=list)
    worst_seconds: float = 0.0

    def add(self, other: "Count") -> None:
        self.requests += other.requests
        self.moved += other.moved
        self.repeated += other.repeated
        self.failed += other.failed
        self.worst_seconds = max(self.worst_seconds, other.worst_seconds)


class Load:
    def __init__(self, proxies: dict[str, str], n_clients: int, paths: tuple[str, ...] = PATHS) -> None:
        """`proxies`: address by name; only those in `use` are asked."""
        self.proxies, self.use, self._paths = proxies, sorted(proxies), paths
        self._count, self._lock, self._ended = Count(), threading.Lock(), threading.Event()
        self._clients = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(n_clients)]

    def start(self) -> None:
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        self._ended.set()
        for client in self._clients:
            client.join()

    @contextmanager
    def counted(self) -> Iterator[Count]:
        """What happens in between, and nothing from before."""
        with self._lock:
            self._count = count = Count()
        yield count
        # Requests that are on their way belong to it.
        time.sleep(1)

    def _client(self, number: int) -> None:
        client = Client(self.proxies)
        for turn in itertools.count(number):
            if self._ended.is_set():
                return
            use = self.use
            began = time.monotonic()
            asked = client.ask([use[(turn + n) % len(use)] for n in range(len(use))], self._paths[turn % len(self._paths)])
            asked.worst_seconds = time.monotonic() - began
            with self._lock:
                self._count.add(asked)
            time.sleep(PAUSE_SECONDS)


class Client:
    """One GET after the other, on a connection that is kept with each proxy."""

    def __init__(self, proxies: dict[str, str]) -> None:
        self._proxies = proxies
        self._kept: dict[str, http.client.HTTPConnection] = {}

    def ask(self, order: list[str], path: str) -> Count:
        """At the first proxy that takes the connection."""
        count = Count(requests=1)
        for proxy in order:
            address = self._proxies[proxy]
            try:
                count.failed += self._ask_at(address, path, count)
                return count
            except NotConnected:
                count.moved += 1
            except (OSError, http.client.HTTPException) as error:
                count.failed.append(f"{proxy} {path}: {error!r}")
                return count
        count.failed.append(f"{path}: no proxy takes connections")
        return count

    def _ask_at(self, address: str, path: str, count: Count) -> list[str]:
        connection = self._kept.pop(address, None)
        if connection:
            try:
                return self._exchange(connection, address, path)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                count.repeated += 1
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise NotConnected from error
        return self._exchange(connection, address, path)

    def _exchange(self, connection: http.client.HTTPConnection, address: str, path: str) -> list[str]:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if not response.will_close:
            self._kept[address] = connection
        is_good = response.status == http.HTTPStatus.OK
        return [] if is_good else [f"{address} {path}: {response.status} {body[:200]!r}"]


class NotConnected(Exception):
    """Nobody takes a connection there, so nothing was asked."""


PATIENCE_SECONDS = 20
#: Between two requests of a client: what fails is looked for, not how much there can be.
PAUSE_SECONDS = 0.02
