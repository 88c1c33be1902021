"""The services that this one asks. Which instance answers, and what happens when one fails, is the proxy's affair."""

import httpx
import structlog
from pydantic import ValidationError

from .models import Price

log = structlog.get_logger(__name__)


class Unavailable(Exception):
    """No answer that could be used, after whatever the proxy tried."""


class Others:
    def __init__(self, client: httpx.AsyncClient, gateway_url: str) -> None:
        self._client, self._gateway_url = client, gateway_url.rstrip("/")

    async def user_exists(self, user_id: int) -> bool:
        return await self._get(f"/users/{user_id}") is not None

    async def price_cents(self, article: str) -> int | None:
        answer = await self._get(f"/prices/{article}.json")
        if answer is None:
            return None
        try:
            return Price.model_validate_json(answer.content).cents
        except ValidationError as error:
            log.warning("Price not understood", article=article, reason=str(error))
            raise Unavailable("prices") from error

    async def _get(self, path: str) -> httpx.Response | None:
        """`None`: there is no such thing."""
        try:
            answer = await self._client.get(self._gateway_url + path)
        except httpx.HTTPError as error:
            log.warning("Service does not answer", path=path, reason=repr(error))
            raise Unavailable(path) from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            log.warning("Service answers with an error", path=path, status=answer.status_code)
            raise Unavailable(path)
        return answer
