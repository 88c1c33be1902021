"""Eight clients that ask without end, and a picture of who answers them, drawn anew every 0.4 s."""

import http.client
import sys
import threading
import time
from collections import Counter

PROXY, CLIENTS, PAUSE_S, DRAWN_EVERY_S, WIDTH = "127.0.0.1:8080", 8, 0.02, 0.4, 40


class Tally:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answered, self.failed = 0, 0
        self.lately: Counter[str] = Counter()
        self.seen: set[str] = set()

    def note(self, instance: str | None) -> None:
        with self.lock:
            if instance is None:
                self.failed += 1
                return
            self.answered += 1
            self.lately[instance] += 1
            self.seen.add(instance)


def ask(tally: Tally) -> None:
    connection = http.client.HTTPConnection(PROXY, timeout=5)
    while True:
        try:
            connection.request("GET", "/", headers={"Host": "shop.localhost"})
            answer = connection.getresponse()
            body = answer.read().decode()
            tally.note(body.split('"instance": "')[1].split('"')[0] if answer.status == 200 else None)
        except (OSError, http.client.HTTPException, IndexError):
            tally.note(None)
            connection.close()
        time.sleep(PAUSE_S)


def draw(tally: Tally) -> None:
    with tally.lock:
        lately, tally.lately = tally.lately, Counter()
    total = max(sum(lately.values()), 1)
    bold, green, red, plain = "\033[1m", "\033[32m", "\033[31m", "\033[0m"
    failed = f"{green if tally.failed == 0 else red}{tally.failed} failed{plain}"
    lines = [f"{bold}{CLIENTS} clients ask http://{PROXY}/{plain}   {tally.answered:6,} answered, {failed}", ""]
    for instance in sorted(tally.seen):
        share = lately[instance] / total
        lines.append(f"  {instance}  {green}{'█' * round(share * WIDTH):{WIDTH}}{plain} {share:4.0%}")
    sys.stdout.write("\033[H" + "".join(f"{line}\033[K\n" for line in lines))
    sys.stdout.flush()


def main() -> None:
    tally = Tally()
    for _ in range(CLIENTS):
        threading.Thread(target=ask, args=(tally,), daemon=True).start()
    sys.stdout.write("\033[2J\033[?25l")
    while True:
        time.sleep(DRAWN_EVERY_S)
        draw(tally)


main()
