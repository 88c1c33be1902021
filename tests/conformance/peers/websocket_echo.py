"""A WebSocket server that sends back what it gets. Says where it listens."""

import asyncio

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None) as server:
        print("listening %s:%d" % server.sockets[0].getsockname()[:2], flush=True)
        await asyncio.Future()


asyncio.run(main())
