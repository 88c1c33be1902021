"""How long to wait before the next try: longer each time, never the same for everybody."""

import math
import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """0.2 s, doubling up to 5 s, each with up to half of it left out at random."""

    n_failed: int = 0

    def next(self) -> float:
        full = min(math.ldexp(FIRST_SECONDS, min(self.n_failed, DOUBLINGS_MAX)), LONGEST_SECONDS)
        self.n_failed += 1
        return full * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        self.n_failed = 0


FIRST_SECONDS = 0.2
LONGEST_SECONDS = 5.0
#: Enough to pass the longest, and far from overflowing.
DOUBLINGS_MAX = 8
