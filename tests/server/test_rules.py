"""Field rules: what passes, what is named, and that no value is told."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from dataops.v1 import access_pb2, audit_pb2, common_pb2, imports_pb2, uploads_pb2
from google.protobuf.message import Message

from server.rules import violations_of

ID = str(uuid.UUID(int=1))
GRANT: dict[str, Any] = {"request_id": ID, "issuer": "i", "subject": "s", "role": "r"}


def _found(message: Message) -> list[str]:
    return [violation.subject for violation in violations_of(message)]


@pytest.mark.parametrize(
    ("message", "want"),
    [
        (access_pb2.GrantRoleRequest(**GRANT), []),
        (access_pb2.GrantRoleRequest(), ["request_id", "issuer", "subject", "role"]),
        (access_pb2.GrantRoleRequest(**GRANT | {"request_id": ID + "0"}), ["request_id"]),
        (access_pb2.GrantRoleRequest(**GRANT | {"request_id": "{" + ID[1:-1] + "}"}), ["request_id"]),
        (access_pb2.GrantRoleRequest(**GRANT | {"issuer": "é" * 500}), []),  # characters, not bytes
        (access_pb2.GrantRoleRequest(**GRANT | {"issuer": "é" * 501}), ["issuer"]),
        (access_pb2.GrantRoleRequest(**GRANT | {"subject": "s\0"}), ["subject"]),  # PostgreSQL's text holds no NUL
        (audit_pb2.ListAuditEventsRequest(operation="\0"), ["operation"]),  # nor where no rule stands
        (access_pb2.GrantRoleRequest(**GRANT, kind=77), ["kind"]),  # type: ignore[arg-type]
        (access_pb2.ListGrantsRequest(page_size=-1), ["page_size"]),
        (access_pb2.ListGrantsRequest(page_size=1_000), []),
        (access_pb2.ListGrantsRequest(page_size=1_001), ["page_size"]),
        (access_pb2.ListGrantsRequest(principal_id=""), []),  # not set is checked against `required` alone
        (access_pb2.PutRoleRequest(), ["role"]),
        (access_pb2.PutRoleRequest(role=access_pb2.Role(name="A")), ["role.name"]),
        (access_pb2.PutRoleRequest(role=access_pb2.Role(name="a\n")), ["role.name"]),
        (
            access_pb2.PutRoleRequest(
                role=access_pb2.Role(
                    name="a",
                    permissions=[
                        access_pb2.Permission(operation="imports.*", import_types=[1]),  # type: ignore[list-item]
                        access_pb2.Permission(operation="imports", import_types=[9]),  # type: ignore[list-item]
                    ],
                )
            ),
            ["role.permissions[1].operation", "role.permissions[1].import_types[0]"],
        ),
        (audit_pb2.ListAuditEventsRequest(outcomes=[1] * 11), ["outcomes"]),  # type: ignore[list-item]
        (audit_pb2.ListAuditEventsRequest(time=common_pb2.TimeRange()), []),
    ],
)
def test_a_rule_that_is_broken_is_named_by_its_field(message: Message, want: list[str]) -> None:
    assert _found(message) == want


def test_a_digest_has_32_bytes() -> None:
    request = uploads_pb2.StartUploadRequest(request_id=ID, file_name="a.csv", sha256=bytes(31))
    assert _found(request) == ["sha256"]
    request.sha256 = bytes(32)
    assert _found(request) == []


def test_no_description_tells_the_value() -> None:
    request = access_pb2.GrantRoleRequest(request_id="hunter2", issuer="hunter2" * 100, subject="", role="hunter2" * 99)
    assert len(violations_of(request)) == 4
    assert not any("hunter2" in violation.description for violation in violations_of(request))


def test_a_list_that_is_too_long_is_refused_without_a_look_at_its_items() -> None:
    request = access_pb2.PutRoleRequest(role=access_pb2.Role(name="a"))
    for _ in range(1_001):
        request.role.permissions.add()
    assert _found(request) == ["role.permissions"]


def test_what_is_collected_is_bounded() -> None:
    request = imports_pb2.CreateImportRequest()
    repeated = next(f for f in request.DESCRIPTOR.fields if f.is_repeated and f.message_type is not None)
    for _ in range(900):
        getattr(request, repeated.name).add()
    assert len(violations_of(request)) <= 1_000
