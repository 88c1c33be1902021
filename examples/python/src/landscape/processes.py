"""Programs that are started together and end together, the last one first."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    end_with: signal.Signals

    def ask(self) -> None:
        self.popen.send_signal(self.end_with)

    def end(self) -> int:
        """Its exit code. Whoever does not end in time is killed."""
        try:
            return self.popen.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


class Processes:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[Program] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        *,
        user: str | None = None,
        end_with: signal.Signals = signal.SIGTERM,
    ) -> Program:
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            # In a session of its own, so that Ctrl-C reaches us alone and the order of the end is ours.
            popen = subprocess.Popen(
                command,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        program = Program(name, popen, log, end_with)
        self._running.append(program)
        return program

    def running(self, prefix: str = "") -> list[Program]:
        return [program for program in self._running if program.name.startswith(prefix)]

    def named(self, name: str) -> Program:
        [program] = [program for program in self._running if program.name == name]
        return program

    def stop(self, program: Program) -> int:
        self._running.remove(program)
        program.ask()
        return program.end()

    def wait(self, program: Program) -> int:
        """For one that ends by itself."""
        self._running.remove(program)
        return program.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self._show_logs()
        # Instances drain at the same time, then what they lean on goes one by one.
        drained = self.running(INSTANCE)
        for program in drained:
            program.ask()
        while self._running:
            program = self._running.pop()
            if program not in drained:
                program.ask()
            program.end()

    def _show_logs(self) -> None:
        for program in self._running:
            lines = program.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
            print(f"--- {program.name}", *lines, sep="\n", file=sys.stderr)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(what: str, holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """What other programs do has no event that we could wait for, so we look again and again."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


#: How the names of instances begin.
INSTANCE = "instance-"
#: Longer than a drain and the requests after it.
PATIENCE_SECONDS = 20
SHOWN_LINES = 30
