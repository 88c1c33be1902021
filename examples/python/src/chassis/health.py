"""`/healthz` for whoever decides about traffic, `/metrics` for Prometheus. Neither is behind a route of the proxy."""

from collections.abc import Callable

import structlog
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from psycopg import Error
from psycopg_pool import PoolTimeout

from .database import Pool

log = structlog.get_logger(__name__)


def router(pool: Callable[[], Pool], is_draining: Callable[[], bool], metrics: CollectorRegistry) -> APIRouter:
    """Functions instead of values, since the application is built before either is there."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/healthz")
    async def healthz() -> Response:
        if is_draining():
            # To Pointsman no failure: finish what runs, send nothing new.
            return Response("draining\n", 503, {"x-pointsman-drain": "1"})
        try:
            async with pool().connection(timeout=DATABASE_SECONDS) as connection:
                await connection.execute("SELECT 1")
        except (Error, PoolTimeout) as error:
            log.warning("Database does not answer", reason=str(error))
            return Response("database does not answer\n", 503)
        return Response("well\n")

    @routes.get("/metrics")
    def exposition() -> Response:
        return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)

    return routes


#: A probe has 2 s in all.
DATABASE_SECONDS = 1.0
