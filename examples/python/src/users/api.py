"""The routes of the service."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response, status

from chassis.service import Parts

from . import storage
from .models import NewUser, User

UserId = Annotated[int, Path(ge=1, le=2**63 - 1)]


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(prefix="/users", tags=["users"])

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def add(new: NewUser, response: Response) -> User:
        try:
            user = await storage.add(parts.pool, new)
        except storage.EmailTaken:
            raise HTTPException(status.HTTP_409_CONFLICT, f"somebody has the address {new.email}") from None
        response.headers["location"] = f"/users/{user.id}"
        return user

    @router.get("")
    async def page(
        after: Annotated[int, Query(ge=0, description="The last id of the page before")] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
    ) -> list[User]:
        return await storage.page(parts.pool, after, limit)

    @router.get("/{user_id}")
    async def one(user_id: UserId) -> User:
        user = await storage.get(parts.pool, user_id)
        if user is None:
            raise HTTPException(status.HTTP_404_NOT_FOUND, f"there is no user {user_id}")
        return user

    return router
