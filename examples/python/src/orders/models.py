"""What clients send and get, and what other services answer us."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Article = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]


class NewOrder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    user_id: int = Field(ge=1, le=2**63 - 1)
    article: Article
    quantity: int = Field(ge=1, le=1000)


class Order(BaseModel):
    id: int
    user_id: int
    article: str
    quantity: int
    total_cents: int
    created_at: datetime


class Price(BaseModel):
    """Of `prices`. What else it says is its own affair."""

    cents: int = Field(ge=0)
