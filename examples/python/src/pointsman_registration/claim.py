"""What to do about our key, decided from what we want there and what is there. No clock, no socket.

Nothing of a stranger is overwritten before the claim is made; once it is made, the key is ours to repair, whoever wrote
or deleted it. A record that says exactly what we want to say is left alone while a lease holds it.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """What stands under the key."""

    value: bytes
    #: 0: none, so it would outlive everybody.
    lease: int
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    #: The revision at which the key was last written; 0: it is absent.
    over: int
    #: It answers what somebody did to our key, who may do it again.
    is_repair: bool


class Rest:
    """Nothing to do."""


class Refuse:
    """Somebody else uses our id."""


@dataclass(slots=True)
class Claim:
    is_ours: Callable[[bytes], bool]
    #: We wrote it once, so whatever differs now was done to us.
    made: bool = False

    def step(self, wanted: bytes, lease: int, found: Held | None) -> Write | Rest | Refuse:
        if found is None:
            return Write(over=0, is_repair=self.made)
        same = found.value == wanted
        if found.lease == lease:
            return Rest() if same else Write(found.revision, is_repair=False)
        if self.made:
            # Two processes that register the same thing must not take the key from each other for ever.
            return Rest() if same and found.lease else Write(found.revision, is_repair=True)
        return Write(found.revision, is_repair=False) if self.is_ours(found.value) else Refuse()
