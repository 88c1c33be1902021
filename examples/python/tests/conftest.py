"""What the tests stand on: real programs, started in temporary folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from landscape.processes import Processes, eventually, free_port
from landscape.world import World, answers


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator["Etcd"]:
    with Processes(tmp_path) as processes:
        yield Etcd(processes, tmp_path)


class Etcd:
    """One that can go away, and come back without what it knew."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes, self._folder, self._n_lives = processes, folder, 0
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self._n_lives += 1
        peer = f"http://127.0.0.1:{free_port()}"
        client = ["--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint]
        peers = ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        folder = str(self._folder / f"life-{self._n_lives}")
        self._program = self._processes.start("etcd", ["etcd", "--data-dir", folder, *client, *peers])
        eventually("etcd is well", lambda: answers(f"{self.endpoint}/health"))

    def stop(self) -> None:
        self._processes.stop(self._program)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two users, two orders, one prices, behind one proxy."""
    folder = tmp_path_factory.mktemp("landscape")
    # PostgreSQL's own user has to get into its folder.
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    with World(folder, Path(os.environ["POINTSMAN"])) as running:
        running.start_prices()
        for service in ("users", "users", "orders", "orders"):
            running.start(service)
        for service, n in (("users", 2), ("orders", 2), ("prices", 1)):
            running.until_serving(service, n)
        yield running
