"""One JSON object a line on stderr, from our own code and from every library that uses `logging`."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from . import trace


def configure(service: str, level: str) -> None:
    before: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _add_trace,
        structlog.processors.EventRenamer("message"),
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

    def add_service(_: object, __: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        said["service"] = service
        # Uvicorn says everything twice.
        said.pop("color_message", None)
        return said

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            add_service,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # One line a request is ours, with its trace.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _add_trace(_: object, __: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    of = trace.current.get()
    if of is not None:
        said["trace_id"], said["span_id"] = of.trace_id, of.span_id
        if of.request_id:
            said["request_id"] = of.request_id
    return said
