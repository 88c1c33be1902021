"""Trace context as W3C has it."""

import pytest

from chassis.trace import Trace

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_a_trace_goes_on_with_a_span_of_its_own() -> None:
    trace = Trace.go_on(GIVEN, "vendor=1", "r1")
    said = trace.headers()
    version, trace_id, span_id, flags = said["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", "0af7651916cd43dd8448eb211c80319c", "00")
    assert span_id == trace.span_id != "b7ad6b7169203331"
    assert said["tracestate"] == "vendor=1"
    assert said["x-request-id"] == "r1"


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert Trace.go_on("01" + GIVEN[2:] + "-more").trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("said", [None, "", "00-xyz", GIVEN.upper(), "ff" + GIVEN[2:], GIVEN[:3] + "0" * 32 + GIVEN[35:]])
def test_what_makes_no_sense_begins_a_trace_of_our_own(said: str | None) -> None:
    trace = Trace.go_on(said, "vendor=1")
    assert len(trace.trace_id) == 32
    assert trace.trace_id != "0af7651916cd43dd8448eb211c80319c"
    assert "tracestate" not in trace.headers()
