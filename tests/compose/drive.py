"""What the cluster of docker-compose.yml goes through while requests run. One line for each drill; exit 1 if one failed."""

import sys
import time
from collections.abc import Callable

from cluster import (
    PROXIES,
    Failed,
    address,
    bring_back,
    compose,
    containers,
    cut_off,
    docker,
    get,
    scale,
    until,
    until_answers,
    until_ready,
)
from load import Count, Load


def scaled_up_and_down(_: Load) -> None:
    for n in (5, 2):
        scale("shop", n)
        until_ready("shop", n)


def killed(_: Load) -> None:
    # The engine leaves what was killed by hand where it is.
    docker("kill", containers("shop")[0])
    until_ready("shop", 1)
    scale("shop", 2)
    until_ready("shop", 2)


def one_etcd_away(_: Load) -> None:
    member = cut_off("etcd-3")
    scale("shop", 3)
    until_ready("shop", 3)
    bring_back(member, "etcd-3")
    until_well(member)


def two_etcd_away(_: Load) -> None:
    members = {name: cut_off(name) for name in ("etcd-2", "etcd-3")}
    # Longer than the leases of `shop` and `prices`, which nobody can renew.
    time.sleep(12)
    for proxy in PROXIES:
        get(f"http://{address(proxy, 9900)}/readyz")
    for name, member in members.items():
        bring_back(member, name)
    for member in members.values():
        until_well(member)
    until_ready("shop", 3)


def proxy_away(load: Load) -> None:
    # Its clients know: what they had under way at that moment would be lost.
    load.use = ["pointsman-1"]
    time.sleep(1)
    proxy = cut_off("pointsman-2")
    scale("shop", 4)
    until_ready("shop", 4, ("pointsman-1",))
    # As long as every instance needs to be probed once. Connections to them from before have an address that is gone: dead,
    # and nobody says so but the probe that cannot connect.
    time.sleep(8)
    bring_back(proxy, "pointsman-2", "gateway")
    until_ready("shop", 4)
    load.proxies["pointsman-2"] = address("pointsman-2", 8080)
    load.use = list(PROXIES)


def proxies_rolled(load: Load) -> None:
    for proxy in PROXIES:
        compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", proxy)
        until_answers(f"http://{address(proxy, 9900)}/readyz")
        load.proxies[proxy] = address(proxy, 8080)
        until_ready("shop", 4)


DRILLS: tuple[tuple[str, Callable[[Load], None]], ...] = (
    ("shop scaled from 2 to 5 and back", scaled_up_and_down),
    ("a container of shop killed", killed),
    ("one etcd of three cut off, and back", one_etcd_away),
    ("two etcd of three cut off, and back", two_etcd_away),
    ("a proxy cut off, and back", proxy_away),
    ("the proxies rolled", proxies_rolled),
)


def until_well(member: str) -> None:
    def is_well() -> bool:
        return '"health":true' in docker("exec", member, "etcdctl", "endpoint", "health", "--write-out=json")

    until("an etcd is well", is_well)


def begin() -> None:
    """Every service is there, both proxies answer where they are published, and the databases have something to tell."""
    for service in ("shop", "users", "orders", "prices"):
        until_ready(service, 1)
    for port in (8081, 8082):
        until_answers(f"http://127.0.0.1:{port}/")
    get("http://127.0.0.1:8081/users", {"email": "ada@example.org", "name": "Ada"})
    get("http://127.0.0.1:8082/orders", {"user_id": 1, "article": "tea", "quantity": 2})
    scale("shop", 2)
    until_ready("shop", 2)


def watched() -> None:
    """Prometheus scrapes both proxies, and its rules work."""
    prometheus = "http://127.0.0.1:9090/api/v1"

    def scrapes_both() -> bool:
        return [target["health"] for target in get(f"{prometheus}/targets")["data"]["activeTargets"]] == ["up", "up"]

    until("Prometheus scrapes both", scrapes_both)
    groups = get(f"{prometheus}/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    sick = [rule["name"] for rule in rules if rule["health"] == "err"]
    if not rules or sick:
        raise Failed(f"Prometheus has {len(rules)} rules; in trouble: {sick}")


def told(name: str, count: Count, seconds: float) -> None:
    moved = f", {count.moved} went to the other proxy" if count.moved else ""
    repeated = f", {count.repeated} repeated on a new connection" if count.repeated else ""
    worst = f"worst {count.worst_seconds * 1000:.0f} ms"
    n_failed = len(count.failed)
    print(f"{name}: {count.requests} requests, {n_failed} failed, {worst}{moved}{repeated} ({seconds:.0f} s)", flush=True)
    for failure in count.failed[:5]:
        print(f"  {failure}", flush=True)


def main() -> int:
    begin()
    watched()
    load, n_bad = Load({proxy: address(proxy, 8080) for proxy in PROXIES}, n_clients=4), 0
    load.start()
    try:
        for name, drill in DRILLS:
            began = time.monotonic()
            with load.counted() as count:
                drill(load)
            told(name, count, time.monotonic() - began)
            n_bad += bool(count.failed)
    finally:
        load.stop()
    return 1 if n_bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"FAILED: {failure}")
