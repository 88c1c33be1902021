"""Ties a registration to the life of a program under any ASGI server: `async with registered(...)` in its lifespan.

Servers answer SIGTERM by closing their door, which is too early: proxies still send. So for as long as we are
registered the signal comes to us first. We drain, take the record away, and hand it on to whoever had it before.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .registration import Registration


@asynccontextmanager
async def registered(registration: Registration) -> AsyncIterator[Registration]:
    registration.start()
    signals = _SignalsFirst(registration)
    # Elsewhere Python has no signals, and neither has a test client that runs the application in a thread.
    if threading.current_thread() is threading.main_thread():
        signals.take()
    try:
        yield registration
    finally:
        signals.give_back()
        await registration.close()


class _SignalsFirst:
    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        # Any: the type of `signal.getsignal`'s answer.
        self._before: dict[signal.Signals, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, self._on, number)

    def give_back(self) -> None:
        loop = asyncio.get_running_loop()
        while self._before:
            number, handler = self._before.popitem()
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def _on(self, number: signal.Signals) -> None:
        task = asyncio.create_task(self._leave(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _leave(self, number: signal.Signals) -> None:
        is_first = not self._registration.is_draining
        await self._registration.drain()
        if is_first:
            await self._registration.close()
            self.give_back()
            signal.raise_signal(number)
