"""Everything together: the services behind the built proxy, with a real etcd and a real PostgreSQL."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from landscape.processes import eventually
from landscape.world import World

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=world.gateway, timeout=30) as opened:
        yield opened


def add_user(client: httpx.Client, email: str) -> int:
    answer = client.post("/users", json={"email": email, "name": "Ada"})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/users/{answer.json()['id']}"
    return int(answer.json()["id"])


@contextmanager
def load(client: httpx.Client, path: str) -> Iterator[list[int]]:
    """Requests one after the other until the block ends; the list has their statuses."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                statuses.append(client.get(path).status_code)
            except httpx.HTTPError:
                statuses.append(0)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield statuses
        n = len(statuses)
        eventually("twenty requests more", lambda: len(statuses) > n + 20)
    finally:
        over.set()
        asker.join()


def test_an_order_is_made_of_a_user_and_a_price(client: httpx.Client) -> None:
    user = add_user(client, "ada@example.org")
    answer = client.post("/orders", json={"user_id": user, "article": "tea", "quantity": 2})
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert order["total_cents"] == 900
    assert client.get(answer.headers["location"]).json() == order


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/users", {"email": "nobody", "name": "Ada"}, 422),
        ("/users", {"email": "a@example.org", "name": " "}, 422),
        ("/users", {"email": "a@example.org", "name": "Ada", "admin": True}, 422),
        ("/orders", {"user_id": 999999, "article": "tea", "quantity": 1}, 422),
        ("/orders", {"user_id": 1, "article": "../healthz", "quantity": 1}, 422),
        ("/orders", {"user_id": 1, "article": "gold", "quantity": 1}, 422),
        ("/orders", {"user_id": 1, "article": "tea", "quantity": 0}, 422),
    ],
)
def test_what_cannot_be_is_refused(client: httpx.Client, path: str, body: dict[str, object], status: int) -> None:
    assert client.post(path, json=body).status_code == status


def test_an_address_is_taken_once(client: httpx.Client) -> None:
    add_user(client, "grace@example.org")
    assert client.post("/users", json={"email": "Grace@Example.org", "name": "G"}).status_code == 409
    assert client.get("/users/999999").status_code == 404
    assert client.get("/users/0").status_code == 422


def test_pages_follow_one_another(client: httpx.Client) -> None:
    ids = [add_user(client, f"page{n}@example.org") for n in range(3)]
    first = client.get("/users", params={"after": ids[0] - 1, "limit": 2}).json()
    then = client.get("/users", params={"after": first[-1]["id"], "limit": 2}).json()
    assert [user["id"] for user in first + then][:3] == ids


def test_the_documents_are_behind_the_services_own_path(client: httpx.Client) -> None:
    assert "/users/{user_id}" in client.get("/users/openapi.json").json()["paths"]
    assert "/orders/{order_id}" in client.get("/orders/openapi.json").json()["paths"]
    assert client.get("/orders/docs").status_code == 200


def test_one_trace_goes_through_the_proxy_and_every_service(world: World, client: httpx.Client) -> None:
    user = add_user(client, "trace@example.org")
    body = {"user_id": user, "article": "biscuits", "quantity": 1}
    answer = client.post("/orders", json=body, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    assert answer.status_code == 201

    def lines() -> list[dict[str, object]]:
        logs = (program.log.read_text() for program in world.processes.running("instance-"))
        said = (json.loads(line) for log in logs for line in log.splitlines() if line.startswith("{"))
        return [line for line in said if line.get("trace_id") == TRACE and line["message"] == "Request"]

    eventually("both services have told of it", lambda: len(lines()) == 2)
    assert {(line["service"], line["route"]) for line in lines()} == {("orders", "/orders"), ("users", "/users/{user_id}")}
    assert len({line["span_id"] for line in lines()}) == 2


def test_metrics_count_by_route_and_never_by_path(world: World, client: httpx.Client) -> None:
    user = add_user(client, "metrics@example.org")
    extra = world.start("users")
    world.until_serving("users", 3)
    own = httpx.Client(base_url=f"http://127.0.0.1:{extra.port}")
    with own:
        for _ in range(3):
            assert own.get(f"/users/{user}").status_code == 200
        text = own.get("/metrics").text
    assert 'http_requests_total{method="GET",route="/users/{user_id}",status="200"} ' in text
    assert f'route="/users/{user}"' not in text
    assert "healthz" not in text
    world.processes.stop(extra.program)


def test_an_instance_that_is_told_to_end_drains_and_nobody_notices(world: World, client: httpx.Client) -> None:
    user = add_user(client, "drain@example.org")
    leaving = world.start("users")
    world.until_serving("users", 3)
    health = httpx.Client(base_url=f"http://127.0.0.1:{leaving.port}")
    with health, load(client, f"/users/{user}") as statuses:
        assert health.get("/healthz").status_code == 200
        leaving.program.popen.send_signal(signal.SIGTERM)
        eventually("the proxy knows", lambda: world.states("users").get(leaving.id) == "draining")
        answer = health.get("/healthz")
        assert (answer.status_code, answer.headers["x-pointsman-drain"]) == (503, "1")
        eventually("it is gone", lambda: leaving.id not in world.states("users"))
        world.processes.wait(leaving.program)
    assert set(statuses) == {200}, statuses
    log = leaving.program.log.read_text()
    assert "Application shutdown complete" in log
    assert log.index("Lease given back") < log.index("Shutting down"), "the record goes before the door closes"


def test_an_instance_that_is_killed_is_nobodys_error(world: World, client: httpx.Client) -> None:
    user = add_user(client, "kill@example.org")
    victim = world.start("users")
    world.until_serving("users", 3)
    with load(client, f"/users/{user}") as statuses:
        victim.program.popen.kill()
        world.processes.wait(victim.program)
    assert set(statuses) == {200}, statuses


def test_etcd_may_go_and_come_back(world: World, client: httpx.Client) -> None:
    user = add_user(client, "etcd@example.org")
    with load(client, f"/users/{user}") as statuses:
        world.processes.stop(world.processes.named("etcd"))
        assert client.post("/orders", json={"user_id": user, "article": "tea", "quantity": 1}).status_code == 201
        world.start_etcd()
        newcomer = world.start("users")
        eventually("a newcomer is found again", lambda: world.states("users").get(newcomer.id) == "ready")
        world.processes.stop(newcomer.program)
    assert set(statuses) == {200}, statuses
