"""One connection to one etcd, in the few words that a registration needs. The only file that knows `aetcd`.

`aetcd` has no types and connects to one endpoint without TLS; what it says is given types here.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import aetcd

from .claim import Held


class Unreachable(Exception):
    """This endpoint does not answer, or not with what was asked for."""


class LeaseLost(Exception):
    """etcd does not know our lease any more."""


class Connection:
    def __init__(self, client: aetcd.Client) -> None:
        self._client = client

    async def grant(self, ttl_seconds: int) -> int:
        with _translated():
            lease = await self._client.lease(ttl_seconds)
            return int(lease.id)

    async def refresh(self, lease: int) -> None:
        with _translated():
            reply = await self._client.refresh_lease(lease)
        if reply is None or reply.TTL <= 0:
            raise LeaseLost

    async def revoke(self, lease: int) -> None:
        with _translated():
            await self._client.revoke_lease(lease)

    async def read(self, key: str) -> Held | None:
        with _translated():
            found = await self._client.get(key.encode())
        return None if found is None else Held(bytes(found.value), int(found.lease), int(found.mod_revision))

    async def write(self, key: str, value: bytes, lease: int, over: int) -> bool:
        """Writes if the key was last written at `over`; False: it was not."""
        transactions = self._client.transactions
        unchanged = transactions.mod(key.encode()) == over
        with _translated():
            written, _ = await self._client.transaction(
                [unchanged], success=[transactions.put(key.encode(), value, lease=lease)], failure=[]
            )
        return bool(written)

    async def changes(self, key: str) -> AsyncIterator[None]:
        """Yields when somebody changes the key. It may end without a word, so nobody relies on it alone."""
        with _translated():
            watch = await self._client.watch(key.encode())
            async for _ in watch:
                yield


@asynccontextmanager
async def connect(endpoint: str) -> AsyncIterator[Connection]:
    url = urlsplit(endpoint)
    if url.scheme != "http" or not url.hostname:
        raise ValueError(f"{endpoint!r} is not http://HOST:PORT, all that aetcd can connect to")
    client = aetcd.Client(url.hostname, url.port or ETCD_PORT, timeout=ANSWER_SECONDS, options=CHANNEL_OPTIONS)
    try:
        with _translated():
            await client.connect()
        yield Connection(client)
    finally:
        await client.close()


@contextmanager
def _translated() -> Iterator[None]:
    """What went wrong, in our own words."""
    try:
        yield
    except aetcd.ClientError as error:
        if "lease not found" in str(error):
            raise LeaseLost from error
        raise Unreachable(str(error) or type(error).__name__) from error
    except TimeoutError as error:
        raise Unreachable("no answer in time") from error


ETCD_PORT = 2379
#: For one answer. Three of them fit between a renewal that fails and the end of the lease.
ANSWER_SECONDS = 2
#: gRPC would keep the failures of an endpoint for all channels to it, and wait up to two minutes.
CHANNEL_OPTIONS = {"grpc.use_local_subchannel_pool": 1, "grpc.max_reconnect_backoff_ms": 2000}
