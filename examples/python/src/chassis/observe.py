"""Every request gets its trace, its place in the metrics, and one line in the log."""

import time

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import trace

log = structlog.get_logger(__name__)


class Metrics:
    """Each application has its own registry, so that several live in one process, as in tests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests_total",
            "Finished requests, by what of the API they met.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "http_request_seconds", "From the request to the end of its response.", ["route"], registry=self.registry
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being worked on.", registry=self.registry)


class Observed:
    """Plain ASGI: it sees the end of a response, and the context variable reaches the code of the route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNSEEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        of = trace.Trace.go_on(headers.get("traceparent"), headers.get("tracestate"), headers.get("x-request-id"))
        token = trace.current.set(of)
        began = time.perf_counter()
        # What the server makes of an application that says nothing.
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._metrics.in_flight.track_inprogress():
                await self._app(scope, receive, noting)
        finally:
            self._note(scope, status, time.perf_counter() - began)
            trace.current.reset(token)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, never the path: `/users/1` and `/users/2` are one series.
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"], route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        log.info("Request", method=scope["method"], path=scope["path"], route=route, status=status, ms=round(seconds * 1000, 2))


#: Asked every few seconds, and nobody wants to read of it.
UNSEEN = frozenset({"/healthz", "/metrics"})
