"""etcd, Pointsman, PostgreSQL and instances of the services, wired together."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from . import postgres
from .processes import INSTANCE, Processes, Program, eventually, free_port

#: Each with its database, its route `/NAME`, and its package.
SERVICES = ("users", "orders")


@dataclass(frozen=True, slots=True)
class Running:
    """One instance."""

    id: str
    port: int
    program: Program


class World:
    def __init__(self, folder: Path, pointsman: Path, drain_seconds: float = 2.0) -> None:
        self._folder, self._pointsman, self._drain_seconds = folder, pointsman, drain_seconds
        self.processes = Processes(folder)
        self.etcd = f"http://127.0.0.1:{free_port()}"
        self.gateway = f"http://127.0.0.1:{free_port()}"
        self.admin = f"http://127.0.0.1:{free_port()}"
        self._n_started = 0

    def __enter__(self) -> Self:
        try:
            self._postgres = postgres.start(self.processes, self._folder / "postgres", SERVICES)
            self.start_etcd()
            self._start_proxy()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.processes.__exit__(kind, error, trace)

    def start_etcd(self) -> Program:
        """Again on the same port and the same files, after it was stopped."""
        peer = f"http://127.0.0.1:{free_port()}"
        client = ["--listen-client-urls", self.etcd, "--advertise-client-urls", self.etcd]
        peers = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        program = self.processes.start("etcd", ["etcd", "--data-dir", str(self._folder / "etcd"), *client, *peers])
        eventually("etcd is well", lambda: answers(f"{self.etcd}/health"))
        return program

    def _start_proxy(self) -> None:
        listen, admin = self.gateway.removeprefix("http://"), self.admin.removeprefix("http://")
        registry = {"POINTSMAN_REGISTRY_ENDPOINTS": self.etcd}
        self.processes.start("pointsman", [str(self._pointsman), "run", "--listen", listen, "--admin", admin], registry)
        eventually("Pointsman is ready", lambda: answers(f"{self.admin}/readyz"))
        for service in (*SERVICES, "prices"):
            self.put("route", service, {"path_prefix": f"/{service}", "service": service})

    def put(self, kind: str, name: str, record: dict[str, object]) -> None:
        file = self._folder / f"{kind}-{name}.json"
        file.write_text(json.dumps(record))
        command = [str(self._pointsman), "put", kind, name, str(file)]
        program = self.processes.start(f"put-{kind}-{name}", command, {"POINTSMAN_REGISTRY_ENDPOINTS": self.etcd})
        if self.processes.wait(program) != 0:
            raise RuntimeError(f"pointsman put {kind} {name}: {program.log.read_text()}")

    def start(self, service: str) -> Running:
        """A further instance, which registers itself."""
        id, port = self._next(service)
        environ = {
            "POINTSMAN_REGISTRY_ENDPOINTS": self.etcd,
            "POINTSMAN_SERVICE": service,
            "POINTSMAN_ADDRESS": f"127.0.0.1:{port}",
            "POINTSMAN_INSTANCE": id,
            "DATABASE_URL": f"{self._postgres}/{service}",
            "GATEWAY_URL": self.gateway,
            "LISTEN_HOST": "127.0.0.1",
            "LISTEN_PORT": str(port),
            "DRAIN_SECONDS": str(self._drain_seconds),
        }
        return Running(id, port, self.processes.start(INSTANCE + id, [sys.executable, "-m", service], environ))

    def start_prices(self) -> Running:
        """A web server that knows nothing of us, registered by the command around it."""
        id, port = self._next("prices")
        address = f"127.0.0.1:{port}"
        register = ["register", "--service", "prices", "--address", address, "--id", id, "--probe", "/healthz", "--drain", "1s"]
        server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(WWW)]
        command = [str(self._pointsman), *register, "--", *server]
        return Running(id, port, self.processes.start(INSTANCE + id, command, {"POINTSMAN_REGISTRY_ENDPOINTS": self.etcd}))

    def states(self, service: str) -> dict[str, str]:
        """Of each instance, as the proxy sees it."""
        answer = httpx.get(f"{self.admin}/api/v1/services/{service}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        return {instance["id"]: instance["state"] for instance in answer.raise_for_status().json()["instances"]}

    def until_serving(self, service: str, n: int) -> None:
        eventually(f"{n} of {service} take requests", lambda: list(self.states(service).values()).count("ready") == n)

    def _next(self, service: str) -> tuple[str, int]:
        self._n_started += 1
        return f"{service}-{self._n_started}", free_port()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


#: What the `prices` service serves.
WWW = Path(__file__).parent.parent.parent / "www"
