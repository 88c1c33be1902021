"""The machine that `machine.sh` has started, seen from its own network: commands inside, units, one request."""

import http.client
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

UNIT = "pointsman.service"
#: Where the package's configuration has its port, its registry and its admin endpoint.
PROXY, REGISTRY, ADMIN = "127.0.0.1:80", "127.0.0.1:2379", "127.0.0.1:9900"
#: More than anything here takes on a machine that has other work.
PATIENCE_SECONDS = 90


class Failed(Exception):
    """Something did not hold."""


def inside(*command: str, text: str | None = None, may_fail: bool = False) -> str:
    """What it prints, as root of the machine; `text` is its standard input."""
    entered = ["nsenter", "--target", os.environ["MACHINE"], "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
    environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER="]
    done = subprocess.run(
        [*entered, "--root", "--wd", "env", "-i", *environment, *command],
        check=False, input=text or "", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode and not may_fail:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def systemctl(*command: str) -> str:
    return inside("systemctl", *command)


def shown(name: str, unit: str = UNIT) -> str:
    """A property of the unit."""
    return systemctl("show", f"--property={name}", "--value", unit).strip()


def main_pid() -> int:
    return int(shown("MainPID"))


def journal(*more: str) -> str:
    return inside("journalctl", "--unit", UNIT, "--output=cat", *more)


def write(path: str, text: str) -> None:
    inside("sh", "-c", f'mkdir -p "$(dirname {path})" && cat >{path}', text=text)


def set_apart(settings: str) -> None:
    """As `systemctl edit` would, for all drills that follow; nothing takes it back."""
    write(f"/etc/systemd/system/{UNIT}.d/override.conf", settings)
    systemctl("daemon-reload")


def must(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Failed(otherwise)


def until(what: str, holds: Callable[[], bool]) -> float:
    """How many seconds it took."""
    began = time.monotonic()
    while not holds():
        must(time.monotonic() - began < PATIENCE_SECONDS, f"waited for {PATIENCE_SECONDS} s in vain until {what}")
        time.sleep(0.1)
    return time.monotonic() - began


@dataclass
class Answer:
    """`status` 0: there was none."""

    status: int
    body: bytes = b""


def ask(path: str, address: str = PROXY, method: str = "GET") -> Answer:
    """On a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, repr(error).encode())
    finally:
        connection.close()
