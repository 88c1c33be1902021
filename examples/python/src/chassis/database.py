"""A pool of connections to PostgreSQL, and the schema brought up to date before the first request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources.abc import Traversable
from typing import Any

import structlog
from psycopg import AsyncConnection
from psycopg.sql import SQL
from psycopg_pool import AsyncConnectionPool

log = structlog.get_logger(__name__)

Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]


@asynccontextmanager
async def connected(url: str, connections: int, migrations: Traversable) -> AsyncIterator[Pool]:
    """Connections that the database has closed are noticed before they are lent, so its restart costs no request more."""
    pool: Pool = AsyncConnectionPool(
        url,
        min_size=1,
        max_size=connections,
        timeout=WAIT_SECONDS,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
    async with pool:
        await _migrate(pool, migrations)
        yield pool


async def _migrate(pool: Pool, migrations: Traversable) -> None:
    """`0001_….sql` and so on, each once and in one transaction; instances that start together wait for one another."""
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        await connection.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, at timestamptz DEFAULT now())")
        rows = await (await connection.execute("SELECT name FROM migrations")).fetchall()
        done = {row[0] for row in rows}
        files = (file for file in migrations.iterdir() if file.name.endswith(".sql"))
        for file in sorted(files, key=lambda file: file.name):
            if file.name not in done:
                await connection.execute(SQL(file.read_text()))
                await connection.execute("INSERT INTO migrations (name) VALUES (%s)", [file.name])
                log.info("Migration applied", migration=file.name)


#: For a free connection. Longer, and the client has given up.
WAIT_SECONDS = 5.0
#: Any number, the same in every instance.
MIGRATION_LOCK = 7_210_034
