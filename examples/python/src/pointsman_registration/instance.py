"""What an instance says of itself, and under which key. No clock, no socket."""

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class State(StrEnum):
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Instance:
    service: str
    #: HOST:PORT, as proxies connect to it.
    address: str
    #: Its name within the service; without one, this machine's name and the port.
    id: str = ""
    #: Its share beside its siblings, 0 to 65535; 0 is no new traffic.
    weight: int = 100
    #: Where it runs, as proxies name zones.
    zone: str | None = None
    #: What proxies probe, with GET; without it they are content with a connection.
    probe_path: str | None = None
    #: Kept and shown, never acted on.
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
            raise ValueError(f"address: {self.address!r} is not HOST:PORT")
        if not self.id:
            object.__setattr__(self, "id", f"{socket.gethostname()}-{port}")
        for name, said in (("service", self.service), ("id", self.id)):
            if not NAME.fullmatch(said):
                raise ValueError(f"{name}: {said!r} is not 1 to 128 of A-Z a-z 0-9 . _ : @ + -")
        if not 0 <= self.weight <= WEIGHT_MAX:
            raise ValueError(f"weight: {self.weight} is not in 0..={WEIGHT_MAX}")

    @classmethod
    def from_environment(cls, probe_path: str | None = None, environ: Mapping[str, str] = os.environ) -> Self:
        """From the variables of `pointsman register`: POINTSMAN_SERVICE, _ADDRESS, _INSTANCE; and _WEIGHT, _ZONE."""
        return cls(
            service=environ["POINTSMAN_SERVICE"],
            address=environ["POINTSMAN_ADDRESS"],
            id=environ.get("POINTSMAN_INSTANCE", ""),
            weight=int(environ.get("POINTSMAN_WEIGHT", "100")),
            zone=environ.get("POINTSMAN_ZONE"),
            probe_path=probe_path,
        )

    def key(self, prefix: str) -> str:
        return f"{prefix.rstrip('/')}/instances/{self.service}/{self.id}"

    def record(self, state: State) -> bytes:
        said: dict[str, object] = {"v": 1, "address": self.address, "weight": self.weight, "state": state}
        if self.zone is not None:
            said["zone"] = self.zone
        if self.probe_path is not None:
            said["probe"] = {"path": self.probe_path}
        if self.metadata:
            said["metadata"] = dict(self.metadata)
        return json.dumps(said, separators=(",", ":")).encode()

    def is_earlier_life(self, record: bytes) -> bool:
        """Two instances cannot listen on one address, so whoever has ours was us, before a crash."""
        try:
            said = json.loads(record)
        except ValueError:
            return record.decode(errors="replace").strip() == self.address
        return isinstance(said, dict) and said.get("address") == self.address


#: What Pointsman takes as a name.
NAME = re.compile(r"[A-Za-z0-9._:@+-]{1,128}")
PORT_MAX = 65535
WEIGHT_MAX = 65535
