"""Keeps one key in the registry for as long as its owner lives, whatever etcd goes through.

1. Connect to an endpoint, go on with the lease we had or take a new one.
2. Write what is wanted; `Claim` says whether and over what.
3. Renew and look again three times in a lease's life, and at once when the key changes or something else is wanted.
4. A connection that fails: the next endpoint, after a wait. It never gives up.
5. The owner cancels it, and calls `give_back`: the key goes with the lease.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from . import etcd
from .backoff import Backoff
from .claim import Claim, Refuse, Write

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registry:
    #: `http://HOST:PORT` of each member.
    endpoints: tuple[str, ...]
    prefix: str = "/pointsman"

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError("endpoints: at least one is needed")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self | None:
        """From POINTSMAN_REGISTRY_ENDPOINTS (separated by commas) and POINTSMAN_REGISTRY_PREFIX, as all of Pointsman."""
        said = environ.get("POINTSMAN_REGISTRY_ENDPOINTS", "")
        endpoints = tuple(endpoint.strip() for endpoint in said.split(",") if endpoint.strip())
        return cls(endpoints, environ.get("POINTSMAN_REGISTRY_PREFIX", "/pointsman")) if endpoints else None


class IdTaken(Exception):
    """Another instance holds our id; there is nothing to try again."""


class Keep:
    def __init__(self, registry: Registry, key: str, ttl_seconds: int, claim: Claim) -> None:
        self._registry, self._key, self._ttl_seconds, self._claim = registry, key, ttl_seconds, claim
        self._wanted = b""
        #: Something may be different: look.
        self._news = asyncio.Event()
        self._lease: int | None = None
        self._pause = Backoff()
        self._repairs = Backoff()
        self._repaired_at = float("-inf")

    def want(self, value: bytes) -> None:
        self._wanted = value
        self._news.set()

    async def run(self) -> None:
        """Returns never; raises `IdTaken`."""
        # Many instances with one configuration spread over the endpoints.
        turn = random.randrange(len(self._registry.endpoints))
        while True:
            endpoint = self._registry.endpoints[turn % len(self._registry.endpoints)]
            try:
                await self._session(endpoint)
            except etcd.LeaseLost:
                self._lease = None
                log.warning("Lease lost; registering anew", extra={"key": self._key})
            except etcd.Unreachable as error:
                turn += 1
                log.warning("Registry unreachable", extra={"key": self._key, "endpoint": endpoint, "reason": str(error)})
            await asyncio.sleep(self._pause.next())

    async def give_back(self) -> None:
        """The lease, and the key with it: one try with every endpoint, then it ends by itself."""
        if self._lease is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                for endpoint in self._registry.endpoints:
                    with suppress(etcd.Unreachable, etcd.LeaseLost):
                        async with etcd.connect(endpoint) as connection:
                            await connection.revoke(self._lease)
                        log.info("Lease given back", extra={"key": self._key})
                        return
        log.warning("Registry unreachable; the lease ends by itself", extra={"key": self._key})

    async def _session(self, endpoint: str) -> None:
        async with etcd.connect(endpoint) as connection:
            if self._lease is not None:
                await connection.refresh(self._lease)
            else:
                self._lease = await connection.grant(self._ttl_seconds)
            watching = asyncio.create_task(self._watch(connection))
            try:
                await self._hold(connection, self._lease)
            finally:
                watching.cancel()
                await asyncio.wait([watching])

    async def _watch(self, connection: etcd.Connection) -> None:
        """Only makes looks come sooner: a watch that breaks is a reason to look, and the look tells what is wrong."""
        with suppress(etcd.Unreachable):
            async for _ in connection.changes(self._key):
                self._news.set()
        self._news.set()

    async def _hold(self, connection: etcd.Connection, lease: int) -> None:
        while True:
            self._news.clear()
            await self._look(connection, lease)
            self._pause.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._ttl_seconds / RENEWALS):
                    await self._news.wait()
            await connection.refresh(lease)

    async def _look(self, connection: etcd.Connection, lease: int) -> None:
        step = self._claim.step(self._wanted, lease, await connection.read(self._key))
        match step:
            case Refuse():
                raise IdTaken(self._key)
            case Write(over, is_repair):
                if is_repair:
                    await self._pace_repair()
                value = self._wanted
                if await connection.write(self._key, value, lease, over):
                    message = "Registration was gone or overwritten; registered again" if is_repair else "Registered"
                    log.info(message, extra={"key": self._key, "record": value.decode()})
                    self._claim.made = True
                else:
                    # Somebody was quicker.
                    self._news.set()

    async def _pace_repair(self) -> None:
        """The first repair at once, those close behind it ever later, so that two who disagree do not keep etcd busy."""
        if time.monotonic() - self._repaired_at > CALM_SECONDS:
            self._repairs.reset()
        else:
            await asyncio.sleep(self._repairs.next())
        self._repaired_at = time.monotonic()


#: In the life of a lease: two may be lost.
RENEWALS = 3
#: Nobody waits long for a registry that is away: leases end without us.
LEAVE_SECONDS = 2
#: So long without a repair, and whoever meddled has stopped.
CALM_SECONDS = 30
