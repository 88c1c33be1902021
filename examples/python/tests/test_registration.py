"""The registration against a real etcd that is interfered with, restarted, and emptied."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aetcd
import pytest

from pointsman_registration import Instance, Registration, Registry

from .conftest import Etcd

KEY = b"/pointsman/instances/orders/a1"


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@asynccontextmanager
async def registered(etcd: Etcd, drain_seconds: float = 0) -> AsyncIterator[tuple[Registration, aetcd.Client]]:
    async with listening() as address, aetcd.Client(port=etcd.port, timeout=5) as client:
        # The second endpoint is one where nobody listens.
        registry = Registry((etcd.endpoint, "http://127.0.0.1:9"))
        registration = Registration(registry, Instance("orders", address, id="a1"), ttl_seconds=2, drain_seconds=drain_seconds)
        registration.start()
        try:
            await until(lambda: state(client), "ready")
            yield registration, client
        finally:
            await registration.close()


async def state(client: aetcd.Client) -> str | None:
    found = await client.get(KEY)
    try:
        return None if found is None else json.loads(found.value)["state"]
    except ValueError:
        return "not ours"


async def until(look: Callable[[], Awaitable[object]], expected: object) -> None:
    async with asyncio.timeout(30):
        # What other programs do has no event that we could wait for.
        while await look() != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_it_is_there_under_a_lease_and_gone_at_the_end(etcd: Etcd) -> None:
    async with registered(etcd) as (registration, client):
        assert (await client.get(KEY)).lease != 0
        await registration.drain()
        await until(lambda: state(client), "draining")
        await registration.close()
        assert await client.get(KEY) is None


async def test_nothing_is_registered_before_the_instance_takes_connections(etcd: Etcd) -> None:
    async with listening() as address:
        pass
    registration = Registration(Registry((etcd.endpoint,)), Instance("orders", address, id="a1"), ttl_seconds=2)
    registration.start()
    async with aetcd.Client(port=etcd.port, timeout=5) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await until(lambda: state(client), "ready")
        host, port = address.split(":")
        async with await asyncio.start_server(lambda _, writer: writer.close(), host, int(port)):
            await until(lambda: state(client), "ready")
        await registration.close()


@pytest.mark.parametrize("what", ["delete", "overwrite", "revoke"])
async def test_it_is_put_right(etcd: Etcd, what: str) -> None:
    async with registered(etcd) as (_, client):
        before = await client.get(KEY)
        match what:
            case "delete":
                await client.delete(KEY)
            case "overwrite":
                await client.put(KEY, b"10.9.9.9:1")
            case "revoke":
                await client.revoke_lease(before.lease)

        async def is_back() -> bool:
            found = await client.get(KEY)
            return found is not None and found.value == before.value and found.mod_revision > before.mod_revision

        await until(is_back, True)


async def test_it_is_there_again_after_etcd_came_back_with_nothing(etcd: Etcd) -> None:
    async with registered(etcd):
        etcd.stop()
        etcd.start()
        async with aetcd.Client(port=etcd.port, timeout=5) as anew:
            await until(lambda: state(anew), "ready")


async def test_a_drain_can_be_cut_short(etcd: Etcd) -> None:
    async with registered(etcd, drain_seconds=3600) as (registration, client):
        draining = asyncio.create_task(registration.drain())
        await until(lambda: state(client), "draining")
        assert registration.is_draining
        await registration.drain()
        async with asyncio.timeout(5):
            await draining


async def test_a_strangers_id_is_not_taken(etcd: Etcd, caplog: pytest.LogCaptureFixture) -> None:
    async with aetcd.Client(port=etcd.port, timeout=5) as client, listening() as address:
        await client.put(KEY, b"10.9.9.9:1")
        registration = Registration(Registry((etcd.endpoint,)), Instance("orders", address, id="a1"), ttl_seconds=2)
        registration.start()

        async def is_told() -> bool:
            return "Not registered" in caplog.text

        await until(is_told, True)
        await registration.close()
        assert (await client.get(KEY)).value == b"10.9.9.9:1"
