"""The trace that a request belongs to: W3C Trace Context, taken from the caller and passed on to whom we call."""

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

import httpx


@dataclass(frozen=True, slots=True)
class Trace:
    trace_id: str
    #: Of our own work on the request.
    span_id: str
    flags: str = "01"
    #: Of other tracing systems; handed on as it came.
    tracestate: str | None = None
    request_id: str | None = None

    @classmethod
    def begin(cls, request_id: str | None = None) -> Self:
        return cls(secrets.token_hex(16), secrets.token_hex(8), request_id=request_id)

    @classmethod
    def go_on(cls, traceparent: str | None, tracestate: str | None = None, request_id: str | None = None) -> Self:
        """A new span of the caller's trace; of a trace of our own where the caller's makes no sense."""
        said = TRACEPARENT.fullmatch(traceparent or "")
        if said is None or said["version"] == "ff" or not said["trace"].strip("0") or not said["span"].strip("0"):
            return cls.begin(request_id)
        return cls(said["trace"], secrets.token_hex(8), said["flags"], tracestate, request_id)

    def headers(self) -> dict[str, str]:
        """For a request that we send on behalf of the one we are working on."""
        said = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}"}
        if self.tracestate:
            said["tracestate"] = self.tracestate
        if self.request_id:
            said["x-request-id"] = self.request_id
        return said


#: Of the request that this task works on.
current: ContextVar[Trace | None] = ContextVar("trace", default=None)


async def pass_on(request: httpx.Request) -> None:
    """An event hook for `httpx.AsyncClient`."""
    trace = current.get()
    if trace is not None:
        request.headers.update(trace.headers())


#: Versions after 00 may say more behind the flags.
TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?:-.*)?"
)
