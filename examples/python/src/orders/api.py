"""The routes of the service."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Response, status

from chassis.service import Parts

from . import storage
from .models import NewOrder, Order
from .others import Others, Unavailable

OrderId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def routes(parts: Parts, gateway_url: str) -> APIRouter:
    router = APIRouter(prefix="/orders", tags=["orders"])

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def add(new: NewOrder, response: Response) -> Order:
        others = Others(parts.client, gateway_url)
        try:
            exists, cents = await asyncio.gather(others.user_exists(new.user_id), others.price_cents(new.article))
        except Unavailable as unavailable:
            raise HTTPException(
                status.HTTP_503_SERVICE_UNAVAILABLE, f"no answer from {unavailable}", {"retry-after": "1"}
            ) from unavailable
        if not exists:
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"there is no user {new.user_id}")
        if cents is None:
            raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"there is no article {new.article}")
        order = await storage.add(parts.pool, new, cents * new.quantity)
        response.headers["location"] = f"/orders/{order.id}"
        return order

    @router.get("/{order_id}")
    async def one(order_id: OrderId) -> Order:
        order = await storage.get(parts.pool, order_id)
        if order is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"there is no order {order_id}")
        return order

    return router
