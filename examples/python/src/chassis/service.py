"""Makes an application of a service's settings and routes, and runs it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI

from pointsman_registration import Instance, Registration, Registry, registered

from . import database, health, logs, trace
from .database import Pool
from .observe import Metrics, Observed
from .settings import Settings


class Parts:
    """What lives as long as the application, and is there from its start on."""

    pool: Pool
    #: Passes the trace on to whoever is called.
    client: httpx.AsyncClient
    registration: Registration | None = None

    @property
    def is_draining(self) -> bool:
        return self.registration is not None and self.registration.is_draining


def build(name: str, settings: Settings, routes: Callable[[Parts], APIRouter]) -> FastAPI:
    """`name` is the service's in the registry, the first segment of its paths, and the package with its migrations."""
    logs.configure(name, settings.log_level)
    parts, metrics = Parts(), Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            migrations = files(name) / "migrations"
            url = str(settings.database_url)
            parts.pool = await stack.enter_async_context(database.connected(url, settings.database_connections, migrations))
            client = httpx.AsyncClient(event_hooks={"request": [trace.pass_on]}, timeout=CALL_SECONDS)
            parts.client = await stack.enter_async_context(client)
            registry = Registry.from_environment()
            if registry is not None:
                instance = Instance.from_environment(probe_path="/healthz")
                registration = Registration(registry, instance, drain_seconds=settings.drain_seconds)
                parts.registration = await stack.enter_async_context(registered(registration))
            yield

    # Under the service's own path, so that the proxy's one route to it covers the documentation too.
    app = FastAPI(title=name, lifespan=lifespan, openapi_url=f"/{name}/openapi.json", docs_url=f"/{name}/docs", redoc_url=None)
    app.include_router(health.router(lambda: parts.pool, lambda: parts.is_draining, metrics.registry))
    app.include_router(routes(parts))
    app.add_middleware(Observed, metrics=metrics)
    return app


def run(app: FastAPI, settings: Settings) -> None:
    uvicorn.run(
        app,
        host=settings.listen_host,
        port=settings.listen_port,
        log_config=None,
        server_header=False,
        # Longer than the proxies keep theirs idle, so that it is they who close.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


#: For a call to another service, its retry by the proxy included.
CALL_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 120
#: For requests that still run after the drain.
GRACE_SECONDS = 10
