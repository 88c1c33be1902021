"""What orders makes of the answers of others, without any of them."""

from collections.abc import Callable

import httpx
import pytest

from orders.others import Others, Unavailable


def asking(answer: Callable[[httpx.Request], httpx.Response]) -> Others:
    return Others(httpx.AsyncClient(transport=httpx.MockTransport(answer)), "http://gateway/")


async def test_a_price_is_read_and_an_unknown_article_has_none() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "gateway"
        return (
            httpx.Response(200, json={"cents": 450, "new": 1})
            if request.url.path == "/prices/tea.json"
            else httpx.Response(404)
        )

    others = asking(answer)
    assert await others.price_cents("tea") == 450
    assert await others.price_cents("gold") is None
    assert not await others.user_exists(1)


@pytest.mark.parametrize(
    "answer", [httpx.Response(503), httpx.Response(200, text="{"), httpx.Response(200, json={"cents": -1})]
)
async def test_an_answer_that_is_none_is_told_apart_from_a_no(answer: httpx.Response) -> None:
    with pytest.raises(Unavailable):
        await asking(lambda _: answer).price_cents("tea")


async def test_no_connection_is_no_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable):
        await asking(refuse).user_exists(1)
