"""What the installed package goes through under systemd. One line for each drill; exit 1 with the first that fails.

drive.py OLD.deb NEW.deb SAMPLE: paths inside the machine. Each drill begins where the one before it ended.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lasting import LongAnswer, WebSocket
from machine import (
    ADMIN,
    PROXY,
    REGISTRY,
    UNIT,
    Failed,
    ask,
    inside,
    journal,
    main_pid,
    must,
    set_apart,
    shown,
    systemctl,
    until,
    write,
)

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "tests/compose"))
from load import Count, Load  # noqa: E402

OLD, NEW, SAMPLE = sys.argv[1:4]
HARDENING = REPOSITORY / "docs/hardening.md"
SOCKET = "pointsman.socket"
CONFIG = "/etc/pointsman/pointsman.toml"
#: What clients ask under load: an answer at once, one that takes its time, a body, a stream.
PATHS = ("/", "/slow?ms=300", "/bytes?n=300000", "/stream?chunks=10&ms=30")
#: Short, so that a drill is; long enough for a machine that has other work.
WATCHDOG_SECONDS = 6


def installed() -> str:
    """Nothing runs before an operator says so."""
    write("/tmp/before", files())
    inside("dpkg", "--install", OLD)
    for unit in (UNIT, SOCKET):
        enabled = inside("systemctl", "is-enabled", unit, may_fail=True).strip()
        must((enabled, shown("ActiveState", unit)) == ("disabled", "inactive"), f"{unit} is {enabled}")
    must(ask("/").status == 0, "somebody listens on port 80")
    return "nothing listens"


def started_by_a_request() -> str:
    """The socket alone is there; the first connection starts the service, and waits until it is ready."""
    systemctl("enable", "--now", SOCKET)
    must(shown("ActiveState") == "inactive", "the service runs before anybody asked")
    began = time.monotonic()
    must((status := ask("/").status) == 404, f"the first request got {status}")
    took = time.monotonic() - began
    must(shown("ActiveState") == "active", "the service is not active")
    return f"its answer came after {took:.1f} s"


def ready_when_the_registry_is_known() -> str:
    """`systemctl start` waits for an etcd that is away."""
    systemctl("stop", UNIT, SOCKET)
    as_shipped = inside("cat", CONFIG)
    write(
        CONFIG,
        as_shipped.replace(f'listen = "{REGISTRY}"', 'endpoints = ["http://127.0.0.1:12379"]').replace(
            "\ndata =", "\n# data ="
        ),
    )
    systemctl("start", "--no-block", SOCKET, UNIT)
    until("it waits", lambda: shown("StatusText").startswith("Waiting for the registry"))
    time.sleep(2)
    must(shown("ActiveState") == "activating", f"without its registry it is {shown('ActiveState')}")
    must(ask("/readyz", ADMIN).status == 503, "/readyz says that it is ready")
    with tempfile.TemporaryDirectory() as folder:
        urls = ["--listen-client-urls", "http://127.0.0.1:12379", "--advertise-client-urls", "http://127.0.0.1:12379"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        etcd = subprocess.Popen(["etcd", "--data-dir", folder, "--listen-peer-urls", "http://127.0.0.1:12380", *urls], **quiet)
        try:
            took = until("it is active", lambda: shown("ActiveState") == "active")
        finally:
            systemctl("stop", UNIT)
            etcd.kill()
            etcd.wait()
    write(CONFIG, as_shipped)
    systemctl("enable", "--now", SOCKET, UNIT)
    return f"activating without etcd, active {took:.1f} s after it came"


def serves_port_80_with_no_right() -> str:
    """Traffic for all the drills that follow, to two instances; the process itself is looked into."""
    for port in (3001, 3002):
        flags = ["--listen", f"127.0.0.1:{port}", "--name", f"shop-{port}", "--register", "--service", "shop"]
        inside("systemd-run", f"--unit=shop-{port}", SAMPLE, *flags)
    inside("pointsman", "put", "route", "shop", "-", text='{"path_prefix":"/","service":"shop"}')
    until("it serves", lambda: ask("/").status == 200)
    pid = main_pid()
    status = inside("sh", "-c", f"cat /proc/{pid}/task/*/status")
    n_threads = status.count("CapEff:")
    for what in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        must(status.count(f"{what}:\t{0:016x}\n") == n_threads, f"a thread has capabilities: {what}")
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2"):
        must(status.count(line + "\n") == n_threads, f"a thread has no {line}")
    uid = found_in(status, r"(?m)^Uid:\t(\d+)")
    must(int(uid) > 60_000 and status.count(f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n") == n_threads, f"it is user {uid}")
    return f"user {uid}, no capability in any of {n_threads} threads"


def boxed_in() -> str:
    """The same attempts in the unit's sandbox, and out of it by root."""
    probe = Path(__file__).with_name("probe.pl").read_text()
    write("/usr/local/bin/probe.pl", probe)
    outside = attempts(inside("perl", "/usr/local/bin/probe.pl"))
    set_apart(f"[Service]\nExecStartPre=/usr/bin/perl /usr/local/bin/probe.pl\nWatchdogSec={WATCHDOG_SECONDS}\n")
    inside("rm", "/tmp/probe-was-here")
    systemctl("restart", UNIT)
    boxed = attempts(journal("--lines=200", "--identifier=perl"))
    must(boxed.keys() == outside.keys(), f"not all was tried: {outside.keys() - boxed.keys()}")
    must(set(outside.values()) == {"allowed"}, f"root itself could not: {outside}")
    wanted = {name for name in boxed if name.startswith("+ ")}
    allowed = {name for name, how in boxed.items() if how == "allowed"}
    must(allowed == wanted, f"allowed: {allowed - wanted}; not allowed: {wanted - allowed}")
    must(inside("ls", "/tmp").count("probe-was-here") == 0, "its /tmp is everybody's")
    return f"all {len(boxed) - len(wanted)} attempts failed that root may do, all {len(wanted)} went well that it needs"


def attempts(said: str) -> dict[str, str]:
    return dict(line.split("\t") for line in said.splitlines() if "\t" in line)


def rated() -> str:
    """What systemd thinks of the unit as it runs."""
    figure = found_in(inside("systemd-analyze", "security", UNIT), r"Overall exposure level for pointsman.service: (\S+)")
    documented = found_in(HARDENING.read_text(), r"exposure level of \*\*([\d.]+)\*\*")
    must(float(figure) <= float(documented), f"{figure}, but docs/hardening.md says {documented}")
    return f"exposure level {figure}"


def reloaded(load: Load) -> str:
    """Files are read again, under load; a mistake is told and changes nothing."""
    as_shipped, pid = inside("cat", CONFIG), main_pid()
    with load.counted() as count:
        for n in range(5):
            write(CONFIG, f'{as_shipped}\n[[route]]\npath_prefix = "/by-file-{n}"\nservice = "nobody"\n')
            systemctl("reload", UNIT)
            until("the route is there", lambda n=n: ask(f"/by-file-{n}").status == 503)
        write(CONFIG, f"{as_shipped}\n[[rout]]\n")
        systemctl("reload", UNIT)
        until("the mistake is told", lambda: shown("StatusText").startswith("The configuration was not taken over"))
        must(ask("/by-file-4").status == 503, "what was in force is not")
        write(CONFIG, as_shipped)
        systemctl("reload", UNIT)
        until("it is as before", lambda: ask("/by-file-4").status == 200)
    must(main_pid() == pid and shown("NRestarts") == "0", "it is another process")
    return f"7 times, {well(count)}"


def upgraded(load: Load) -> str:
    """dpkg installs the next version, and the process of it takes over."""
    before, started = main_pid(), shown("ActiveEnterTimestampMonotonic")
    with load.counted() as count:
        long, socket = LongAnswer(200), WebSocket()
        time.sleep(2)
        began = time.monotonic()
        said = inside("dpkg", "--install", NEW)
        took = time.monotonic() - began
        after = main_pid()
        must(after != before, f"the old process serves still: {said}")
        time.sleep(2)
        n_pieces, n_echoes = long.ends(), socket.ends()
        until(
            "the old process has ended",
            lambda: str(before) not in inside("sh", "-c", "echo /proc/[0-9]*").replace("/proc/", "").split(),
        )
    must(inside("dpkg-query", "--show", "--showformat=${Version}", "pointsman") in NEW, "it is not the new version")
    must(b'result="taken_over"} 1' in ask("/metrics", ADMIN).body, "the new process does not know that it took over")
    must(shown("ActiveEnterTimestampMonotonic") == started, "systemd has started the unit anew")
    return (
        f"dpkg took {took:.1f} s, main process {before} → {after}, {well(count)}; "
        f"an answer of {n_pieces} pieces and a WebSocket of {n_echoes} texts went on"
    )


def take_over(before: int) -> None:
    systemctl("kill", "--signal=QUIT", "--kill-whom=main", UNIT)
    until("the main process is another", lambda: main_pid() not in (0, before))


def refused(load: Load) -> str:
    """A version that cannot serve does not: the process that runs goes on, and dpkg says why."""
    as_shipped, before = inside("cat", CONFIG), main_pid()
    write(CONFIG, f"{as_shipped}\n[[rout]]\n")
    with load.counted() as count:
        said = inside("dpkg", "--install", OLD)
    write(CONFIG, as_shipped)
    must("Upgrade refused" in said and "unknown key" in journal("--lines=50"), f"it was not said: {said}")
    must(main_pid() == before and shown("ActiveState") == "active", "it is not as before")
    with load.counted() as again:
        take_over(before)
    return f"{well(count)}; once mended, {well(again)}"


def killed() -> str:
    """More often than systemd would restart a unit that says nothing of it; the first has just taken over, and the one before
    it has something to do still."""
    n_before, worst, pid = int(shown("NRestarts")), 0.0, main_pid()
    open_still = WebSocket()
    take_over(pid)
    for _time in range(6):
        pid = main_pid()
        systemctl("kill", "--signal=KILL", "--kill-whom=main", UNIT)
        began = time.monotonic()
        # The port is systemd's: who connects meanwhile waits.
        until("it answers", lambda: ask("/").status == 200)
        worst = max(worst, time.monotonic() - began)
        until("it is active", lambda pid=pid: shown("ActiveState") == "active" and main_pid() not in (0, pid))
    open_still.breaks()
    n = int(shown("NRestarts")) - n_before
    must(n == 6, f"{n} restarts")
    return f"6 times, 6 restarts, an answer after {worst:.1f} s at most"


def hung() -> str:
    """One that was started by systemd, and one that has taken over."""
    told, worst = [], 0.0
    for taken_over in (False, True):
        if taken_over:
            take_over(main_pid())
            # Well, for longer than the watchdog waits.
            pid = main_pid()
            time.sleep(2 * WATCHDOG_SECONDS)
            must(main_pid() == pid, "the watchdog bit one that works")
        pid, n_before = main_pid(), int(shown("NRestarts"))
        systemctl("kill", "--signal=STOP", "--kill-whom=main", UNIT)
        began = time.monotonic()
        must((status := ask("/").status) == 200, f"who asked while it hung got {status}")
        worst = max(worst, time.monotonic() - began)
        until(
            "it is another process", lambda pid=pid, n=n_before: main_pid() not in (0, pid) and int(shown("NRestarts")) == n + 1
        )
        told.append(f"Watchdog timeout (limit {WATCHDOG_SECONDS}s)!")
    log = journal("--lines=all")
    must(log.count(told[0]) == 2, "systemd does not say that it was the watchdog")
    must("A worker does nothing" not in log, "a worker was thought to be stuck that was not")
    return f"2 times, 2 restarts by the watchdog ({WATCHDOG_SECONDS} s), an answer after {worst:.1f} s at most"


def restarted(load: Load) -> str:
    """What runs gets its time, what comes waits in the socket."""
    pid = main_pid()
    with load.counted() as count:
        long = LongAnswer(50)
        time.sleep(1)
        began = time.monotonic()
        systemctl("restart", UNIT)
        took = time.monotonic() - began
        n_pieces = long.ends()
    must(main_pid() != pid, "it is the same process")
    return f"took {took:.1f} s, {fared(count)}; an answer of {n_pieces} pieces came whole"


def logs() -> str:
    """Its words are in the journal, its access log is rotated."""
    said = journal("--lines=all", f"_PID={main_pid()}")
    must("Told the service manager that this process is ready" in said, f"the journal has {said[-500:]}")
    must(not re.search(r"^\d{4}-\d\d-\d\dT", said, re.MULTILINE), "the journal says each time twice")
    warned = journal("--lines=all", "--priority=warning", "--identifier=pointsman").splitlines()
    must(
        bool(warned) and all(line.lstrip().startswith(("WARN", "ERROR")) for line in warned),
        f"no warnings, or others: {warned}",
    )
    log = "/var/log/pointsman/access.log"
    n_before = int(inside("wc", "--lines", log).split()[0])
    inside("logrotate", "--force", "--state=/tmp/logrotate", "/etc/logrotate.d/pointsman")
    ask("/after")
    until("there is a new one", lambda: "/after" in inside("cat", log, may_fail=True))
    n_after = int(inside("wc", "--lines", f"{log}.1").split()[0])
    must(n_after >= n_before, f"{n_before} lines became {n_after}")
    n_said, n_warned = len(said.splitlines()), len(warned)
    return f"{n_said} of its lines in the journal, {n_warned} warnings of all; {n_after} requests in the rotated access log"


def binds_by_a_capability() -> str:
    """The other way to port 80: as docs/hardening.md has it, word for word."""
    settings = found_in(HARDENING.read_text(), r"(?s)without the `.socket` unit.*?```ini\n(.*?)```")
    systemctl("stop", UNIT, SOCKET)
    set_apart(settings)
    systemctl("start", UNIT)
    must((answered := ask("/").status) in (200, 503), f"port 80 answers {answered}")
    status = inside("sh", "-c", f"cat /proc/{main_pid()}/task/*/status")
    for what in ("CapPrm", "CapEff", "CapAmb"):
        must(status.count(f"{what}:\t{0:016x}\n") == status.count("CapEff:"), f"it has kept a capability: {what}")
    take_over(main_pid())
    until("it serves", lambda: ask("/").status == 200)
    inside("rm", "--recursive", f"/etc/systemd/system/{UNIT}.d")
    systemctl("daemon-reload")
    systemctl("stop", UNIT)
    systemctl("start", SOCKET, UNIT)
    return "given back once port 80 was bound, and an upgrade went well without it"


def removed() -> str:
    """What was learned stays; with a purge nothing does."""
    inside("systemctl", "stop", "shop-3001", "shop-3002")
    inside("rm", "--force", "/usr/local/bin/probe.pl")
    inside("dpkg", "--remove", "pointsman")
    must(ask("/").status == 0, "somebody listens on port 80 still")
    must(inside("sh", "-c", "ls -A /var/lib/private/pointsman").strip() != "", "its state went too early")
    inside("dpkg", "--purge", "pointsman")
    left = set(files().splitlines()) ^ set(inside("cat", "/tmp/before").splitlines())
    must(not left, f"this is left, or missing: {sorted(left)[:20]}")
    units = inside("systemctl", "list-units", "--all", "--full", "--plain", "--no-legend")
    must("pointsman" not in units, f"systemd has units still: {units}")
    failed = systemctl("list-units", "--failed", "--plain", "--no-legend")
    must(not failed.strip(), f"units have failed: {failed}")
    return "no file, no unit, nobody on port 80"


def found_in(text: str, pattern: str) -> str:
    """The first group of the pattern."""
    match = re.search(pattern, text)
    must(match is not None, f"no {pattern} in {text[-500:]}")
    assert match
    return match[1]


def files() -> str:
    """All there are but for other programs' notes of what happened."""
    skip = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/log/journal", "/var/lib/systemd", "/var/cache"]
    prune = " -o ".join(f"-path {folder}" for folder in skip)
    return inside("sh", "-c", f"find / \\( {prune} \\) -prune -o -print | sort")


def well(count: Count) -> str:
    """Not one request failed, nor had to be asked twice."""
    must(not count.failed, f"{len(count.failed)} of {count.requests} requests failed: {count.failed[:3]}")
    must(count.repeated == 0 and count.moved == 0, f"{count.repeated} of {count.requests} requests had to be sent again")
    must(count.requests > 0, "there was no request")
    return fared(count)


def fared(count: Count) -> str:
    must(not count.failed, f"{len(count.failed)} of {count.requests} requests failed: {count.failed[:3]}")
    repeated = f", {count.repeated} sent again on a new connection" if count.repeated else ""
    return f"{count.requests} requests, 0 failed{repeated}, worst {count.worst_seconds * 1000:.0f} ms"


BEFORE: tuple[tuple[str, Callable[[], str]], ...] = (
    ("installed", installed),
    ("started by the first connection to its socket", started_by_a_request),
    ("ready once the registry is known", ready_when_the_registry_is_known),
    ("serves port 80", serves_port_80_with_no_right),
    ("boxed in", boxed_in),
    ("systemd-analyze security", rated),
)
UNDER_LOAD: tuple[tuple[str, Callable[[Load], str]], ...] = (
    ("reloaded", reloaded),
    ("upgraded by dpkg", upgraded),
    ("an upgrade that cannot serve", refused),
    ("restarted", restarted),
)
AFTER: tuple[tuple[str, Callable[[], str]], ...] = (
    ("logs", logs),
    ("killed", killed),
    ("hung", hung),
    ("a capability in place of the socket", binds_by_a_capability),
    ("removed and purged", removed),
)


def tell(name: str, drill: Callable[[], str]) -> None:
    began = time.monotonic()
    counted = drill()
    print(f"ok: {name}: {counted} ({time.monotonic() - began:.0f} s)", flush=True)


def main() -> None:
    for name, drill in BEFORE:
        tell(name, drill)
    load = Load({"machine": PROXY}, n_clients=4, paths=PATHS)
    load.start()
    try:
        for name, drill in UNDER_LOAD:
            tell(name, lambda drill=drill: drill(load))
    finally:
        load.stop()
    for name, drill in AFTER:
        tell(name, drill)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(journal("--lines=40"), file=sys.stderr)
        sys.exit(f"FAILED: {failure}")
