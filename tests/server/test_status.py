"""Statuses: every kind has a code, and none is too large for its trailer."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DataOpsError, ErrorKind, FailedPrecondition, InvalidRequest, Violation
from server.status import CODES, status_of


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_of_error_has_the_code_of_its_name(kind: ErrorKind) -> None:
    assert CODES[kind] is grpc.StatusCode[kind.name]


@given(
    st.text(max_size=3_000),
    st.dictionaries(st.text(min_size=1, max_size=100), st.text(max_size=2_000), max_size=30),
    st.lists(st.builds(Violation, st.text(max_size=400), st.text(max_size=400)), max_size=40),
    st.sampled_from([InvalidRequest, FailedPrecondition]),
    st.none() | st.floats(0, 1e6),
)
def test_no_status_is_larger_than_a_trailer_carries(
    message: str,
    metadata: dict[str, str],
    violations: list[Violation],
    kind: type[DataOpsError],
    retry_after: float | None,
) -> None:
    status = status_of(kind(message, "REASON", metadata, violations, retry_after))
    assert sum(detail.ByteSize() for detail in status.details) <= 4_096
    assert len(status.message) <= 500
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("REASON", "dataops")


def test_violations_are_cut_to_twenty_and_their_total_told() -> None:
    status = status_of(InvalidRequest("x", "R", violations=[Violation(f"f{n}", "d") for n in range(150)]))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (len(bad.field_violations), info.metadata["violations_total"]) == (20, "150")


def test_what_a_precondition_lacks_is_told_as_such() -> None:
    status = status_of(FailedPrecondition("x", "NOT_READY", violations=[Violation("imports/1", "is PENDING")]))
    failure = error_details_pb2.PreconditionFailure()
    assert status.details[1].Unpack(failure)
    assert (failure.violations[0].type, failure.violations[0].subject) == ("NOT_READY", "imports/1")
