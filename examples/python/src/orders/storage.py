"""Orders in PostgreSQL."""

from psycopg.rows import class_row

from chassis.database import Pool

from .models import NewOrder, Order


async def add(pool: Pool, new: NewOrder, total_cents: int) -> Order:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(Order)) as cursor:
        await cursor.execute(
            "INSERT INTO orders (user_id, article, quantity, total_cents) VALUES (%s, %s, %s, %s) "
            "RETURNING id, user_id, article, quantity, total_cents, created_at",
            [new.user_id, new.article, new.quantity, total_cents],
        )
        # The statement has exactly one row.
        [order] = await cursor.fetchall()
        return order


async def get(pool: Pool, order_id: int) -> Order | None:
    async with pool.connection() as connection, connection.cursor(row_factory=class_row(Order)) as cursor:
        await cursor.execute(
            "SELECT id, user_id, article, quantity, total_cents, created_at FROM orders WHERE id = %s", [order_id]
        )
        return await cursor.fetchone()
