"""`python -m landscape POINTSMAN`: starts it all, says what to try, and takes it all away on Ctrl-C."""

import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from .world import World

TRY = """
{gateway} is the way in; try in another terminal:

  curl -i {gateway}/users -H 'content-type: application/json' -d '{{"email":"ada@example.org","name":"Ada"}}'
  curl -i {gateway}/orders -H 'content-type: application/json' -d '{{"user_id":1,"article":"tea","quantity":2}}'
  curl -i {gateway}/users/1 -H 'traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  curl -s {admin}/api/v1/services/users | python3 -m json.tool
  kill -TERM {victim}                        # one of two users: it drains first, and no request is lost
  tail -f {folder}/*.log                     # where the trace turns up again

API documents: {gateway}/users/docs and {gateway}/orders/docs. The proxy: {admin}/. Ctrl-C ends it all.
"""


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m landscape POINTSMAN", file=sys.stderr)
        return 2
    # As Ctrl-C is: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="pointsman-landscape-") as name:
        show(Path(name), Path(sys.argv[1]))
    return 0


def show(folder: Path, pointsman: Path) -> None:
    # PostgreSQL's own user has to get into its folder.
    folder.chmod(0o755)
    with World(folder, pointsman) as world:
        world.start_prices()
        users = [world.start("users"), world.start("users")]
        for _ in range(2):
            world.start("orders")
        for service, n in (("users", 2), ("orders", 2), ("prices", 1)):
            world.until_serving(service, n)
        pid = users[0].program.popen.pid
        print(TRY.format(gateway=world.gateway, admin=world.admin, victim=pid, folder=folder), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
        # The end is not to be interrupted.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        print("Ending: instances drain", flush=True)


if __name__ == "__main__":
    sys.exit(main())
