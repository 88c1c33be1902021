"""One instance, registered from the moment it answers until it has drained."""

import asyncio
import logging
from contextlib import suppress

from .claim import Claim
from .instance import Instance, State
from .registry import Keep, Registry

log = logging.getLogger(__name__)


class Registration:
    """Starting → ready → draining → gone. The last two come once, and nothing leads back."""

    def __init__(
        self,
        registry: Registry,
        instance: Instance,
        *,
        ttl_seconds: int = 15,
        drain_seconds: float = 5.0,
    ) -> None:
        self.instance = instance
        self._drain_seconds = drain_seconds
        self._keep = Keep(registry, instance.key(registry.prefix), ttl_seconds, Claim(instance.is_earlier_life))
        self._task: asyncio.Task[None] | None = None
        self._announced = False
        self._draining = asyncio.Event()
        self._hurried = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Health checks say so too: `503` with `x-pointsman-drain: 1` reaches proxies when the registry is away."""
        return self._draining.is_set()

    def start(self) -> None:
        """Registers as soon as the instance accepts a connection."""
        self._task = asyncio.create_task(self._live(), name="pointsman-registration")

    async def drain(self) -> None:
        """Says that it drains, and gives requests their time. Calling it again cuts that short."""
        if self._draining.is_set():
            self._hurried.set()
            return
        self._draining.set()
        if self._announced:
            self._keep.want(self.instance.record(State.DRAINING))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._drain_seconds):
                    await self._hurried.wait()

    async def close(self) -> None:
        """Takes the record away. Who has not drained is taken for one that the registry lost."""
        self._draining.set()
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        # Its failure was logged when it happened.
        await asyncio.wait([task])
        await self._keep.give_back()

    async def _live(self) -> None:
        try:
            await self._accepts_connections()
            self._announced = True
            if not self.is_draining:
                self._keep.want(self.instance.record(State.READY))
                await self._keep.run()
        except Exception:
            log.exception("Not registered", extra={"service": self.instance.service, "instance": self.instance.id})

    async def _accepts_connections(self) -> None:
        """No server tells its application that it listens now, so we ask."""
        host, _, port = self.instance.address.rpartition(":")
        while not self.is_draining:
            try:
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except OSError:
                await asyncio.sleep(KNOCK_SECONDS)
            else:
                writer.close()
                return


#: Between tries to connect to ourselves.
KNOCK_SECONDS = 0.05
