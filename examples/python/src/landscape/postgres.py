"""A PostgreSQL of our own in a folder, on a port, with a database for each service."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from .processes import Processes, eventually, free_port


def start(processes: Processes, folder: Path, databases: Iterable[str]) -> str:
    """Its address, to which the name of a database is added."""
    # It refuses to run as root; Debian's package brings this user along.
    user = "postgres" if os.geteuid() == 0 else None
    folder.mkdir(mode=0o700)
    if user:
        shutil.chown(folder, user, user)
    cluster, port = folder / "cluster", free_port()
    initdb = [_program("initdb"), "-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(
        initdb, user=user, group=user, extra_groups=[] if user else None, cwd=folder, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb: {done.stderr.decode(errors='replace')}")
    # Without fsync, since nothing here is to survive.
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(folder), "-p", str(port)]
    # SIGINT closes sessions; SIGTERM would wait for them.
    processes.start("postgres", [_program("postgres"), "-D", str(cluster), *options], user=user, end_with=signal.SIGINT)
    address = f"postgresql://postgres@127.0.0.1:{port}"
    eventually("PostgreSQL takes connections", lambda: _answers(address))
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        for name in databases:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    return address


def _answers(address: str) -> bool:
    try:
        psycopg.connect(f"{address}/postgres", connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def _program(name: str) -> str:
    """Debian keeps each version's programs in a folder of its own, outside the path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = versions[-1] if versions else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name}: install PostgreSQL (Debian: postgresql)")
    return str(found)
