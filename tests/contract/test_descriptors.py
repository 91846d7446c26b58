"""Every rpc and every request field says what the edge needs to know of it: permission, audit kind, limits."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataops.v1 import options_pb2 as options
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from server.not_built import NOT_BUILT

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "protos" / "dataops" / "v1").glob("*.proto"))
MODULES = [importlib.import_module(f"dataops.v1.{path.stem}_pb2") for path in SOURCES]
SERVICES: list[ServiceDescriptor] = [s for m in MODULES for s in m.DESCRIPTOR.services_by_name.values()]
RPCS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]

# The services and rpcs that the design names; a lost or renamed one is found here.
EXPECTED_SERVICES = {
    "AccessService": 7,
    "AuditService": 3,
    "BackupService": 10,
    "CatalogService": 2,
    "ExportService": 6,
    "ImportService": 10,
    "JobService": 6,
    "OverviewService": 1,
    "RestoreService": 7,
    "ScheduleService": 9,
    "UploadService": 5,
    "WebhookService": 4,
}


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _rules(field: FieldDescriptor) -> options.FieldRules:
    return field.GetOptions().Extensions[options.rules]


def _fields(message: Descriptor, seen: set[str] | None = None) -> Iterator[FieldDescriptor]:
    """The fields of a request and of our own messages inside it."""
    seen = set() if seen is None else seen
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None and field.message_type.full_name.startswith("dataops."):
            yield from _fields(field.message_type, seen)


REQUEST_FIELDS = {f.full_name: f for method in RPCS for f in _fields(method.input_type)}


def test_the_contract_has_the_services_of_the_design():
    assert {s.name: len(s.methods) for s in SERVICES} == EXPECTED_SERVICES


@pytest.mark.parametrize("method", RPCS, ids=_path)
def test_an_rpc_states_its_permission_and_its_audit_kind(method: MethodDescriptor):
    permission = method.GetOptions().Extensions[options.permission]
    audit = method.GetOptions().Extensions[options.audit]

    assert re.fullmatch(r"authenticated|[a-z]+\.[a-z_]+", permission), permission
    assert audit != options.AUDIT_KIND_UNSPECIFIED


def test_an_rpc_that_starts_work_takes_a_request_id():
    starting = [m for m in RPCS if m.GetOptions().Extensions[options.audit] == options.AUDIT_KIND_START]

    assert starting
    for method in starting:
        field = method.input_type.fields_by_name.get("request_id")
        assert field is not None, _path(method)
        assert _rules(field).uuid, _path(method)


def test_an_rpc_that_changes_something_takes_a_reason():
    changing = {options.AUDIT_KIND_START, options.AUDIT_KIND_CHANGE}
    silent = [
        _path(m)
        for m in RPCS
        if m.GetOptions().Extensions[options.audit] in changing and "reason" not in m.input_type.fields_by_name
    ]

    assert silent == []


def test_a_list_is_paged():
    for method in RPCS:
        if not method.name.startswith(("List", "Preview")):
            continue
        size = _rules(method.input_type.fields_by_name["page_size"])
        assert (size.min, size.max) == (0, 1000), _path(method)
        assert "page_token" in method.input_type.fields_by_name, _path(method)
        assert "next_page_token" in method.output_type.fields_by_name, _path(method)


def test_every_text_byte_string_and_list_of_a_request_is_bounded():
    unbounded = []
    for name, field in REQUEST_FIELDS.items():
        rules = _rules(field)
        bounded = rules.uuid or rules.sha256 or rules.pattern or rules.HasField("max_len")
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) and not bounded:
            unbounded.append(name)
        if field.is_repeated and not rules.HasField("max_items"):
            unbounded.append(f"{name} (items)")

    assert unbounded == []


def test_every_id_of_a_request_is_a_uuid():
    ids = [f for f in REQUEST_FIELDS.values() if f.name.endswith("_id")]

    assert ids
    assert [f.full_name for f in ids if not _rules(f).uuid] == []


def test_every_pattern_compiles_and_matches_whole_texts():
    patterns = {name: _rules(f).pattern for name, f in REQUEST_FIELDS.items() if _rules(f).pattern}

    assert re.fullmatch(patterns["dataops.v1.CsvOptions.delimiter"], "\t")
    for pattern in patterns.values():
        assert not re.fullmatch(pattern, "")


def test_the_list_of_unbuilt_rpcs_names_only_rpcs_of_the_contract():
    assert {_path(m) for m in RPCS} >= NOT_BUILT


def test_numbers_of_our_options_lie_in_the_private_range():
    for extension in (options.permission, options.audit, options.rules):
        assert 50000 <= extension.number <= 99999
