"""What runs of docker-compose.yml, and how it is asked and told."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable
from typing import Any

PROXIES = ("pointsman-1", "pointsman-2")


class Failed(Exception):
    """Something is not as it should be."""


def docker(*args: str) -> str:
    return _run("docker", *args)


def compose(*args: str) -> str:
    return _run("docker-compose", *args)


def containers(service: str) -> list[str]:
    labels = (f"com.docker.compose.project={os.environ['COMPOSE_PROJECT_NAME']}", f"com.docker.compose.service={service}")
    return docker("ps", "--quiet", *(f"--filter=label={label}" for label in labels)).split()


def network() -> str:
    return next(iter(_networks("etcd-1")))


def address(service: str, port: int) -> str:
    return f"{next(iter(_networks(service).values()))['IPAddress']}:{port}"


def get(url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


def until(what: str, holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline, last = time.monotonic() + seconds, "it does not"
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except (OSError, ValueError, KeyError, Failed) as error:
            last = repr(error)
        time.sleep(0.2)
    raise Failed(f"{what}: not after {seconds:.0f} s ({last})")


def until_answers(url: str) -> None:
    until(f"{url} answers", lambda: bool(get(url)))


def until_ready(service: str, n: int, proxies: tuple[str, ...] = PROXIES) -> None:
    """The service has so many instances that take requests, and no others."""
    for proxy in proxies:
        url = f"http://{address(proxy, 9900)}/api/v1/services/{service}"

        def is_so(url: str = url) -> bool:
            instances = get(url)["instances"]
            return len(instances) == n and all(instance["eligible"] for instance in instances)

        until(f"{proxy} has {n} of {service}", is_so)


def scale(service: str, n: int) -> None:
    compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--scale", f"{service}={n}", service)


def cut_off(service: str) -> str:
    """From everything. The container, with which it is brought back."""
    container = containers(service)[0]
    docker("network", "disconnect", network(), container)
    return container


def bring_back(container: str, *names: str) -> None:
    docker("network", "connect", *(f"--alias={name}" for name in names), network(), container)


def _networks(service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", containers(service)[0]))[0]["NetworkSettings"]["Networks"]
    return found


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
