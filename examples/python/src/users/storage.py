"""Users in PostgreSQL."""

from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from chassis.database import Pool

from .models import NewUser, User


class EmailTaken(Exception):
    """Somebody else has this address."""


async def add(pool: Pool, new: NewUser) -> User:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        try:
            await cursor.execute(
                "INSERT INTO users (email, name) VALUES (%s, %s) RETURNING id, email, name, created_at", [new.email, new.name]
            )
        except UniqueViolation:
            raise EmailTaken from None
        # The statement has exactly one row.
        [user] = await cursor.fetchall()
        return user


async def get(pool: Pool, user_id: int) -> User | None:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute("SELECT id, email, name, created_at FROM users WHERE id = %s", [user_id])
        return await cursor.fetchone()


async def page(pool: Pool, after: int, limit: int) -> list[User]:
    """By id, so that a page costs the same however far in it is."""
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute("SELECT id, email, name, created_at FROM users WHERE id > %s ORDER BY id LIMIT %s", [after, limit])
        return await cursor.fetchall()
