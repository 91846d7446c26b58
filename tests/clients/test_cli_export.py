"""`dataops export` and `dataops exports`: each option in the request, and files that arrive over processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from dataops.v1 import common_pb2, exports_pb2, jobs_pb2
from dataops_client import DataOps, parse_condition
from dataops_client.cli import main
from dataops_client.errors import JobFailed

from tests.clients.fake_world import EXPORT_ID, JOB_ID, OTHER_JOB_ID, World
from tests.clients.terminal import interrupted

pytestmark = pytest.mark.usefixtures("configured")


def _exported(tmp_path: Path, world: World, *arguments: str, name: str = "out.csv") -> exports_pb2.CreateExportRequest:
    assert main(["export", *arguments, "-o", str(tmp_path / name), "-q"]) == 0
    return world.created_exports[-1]


@pytest.mark.parametrize(
    ("name", "file_format", "compression"),
    [
        ("u", "CSV", "UNSPECIFIED"),
        ("u.csv", "CSV", "UNSPECIFIED"),
        ("u.json", "JSON", "UNSPECIFIED"),
        ("u.jsonl", "JSON_LINES", "UNSPECIFIED"),
        ("u.NDJSON", "JSON_LINES", "UNSPECIFIED"),
        ("u.zip", "BUNDLE", "UNSPECIFIED"),
        ("u.csv.gz", "CSV", "GZIP"),
        ("u.json.zst", "JSON", "ZSTD"),
        ("u.gz", "CSV", "GZIP"),
    ],
)
def test_format_and_compression_come_from_the_ending(
    name: str, file_format: str, compression: str, tmp_path: Path, world: World
):
    request = _exported(tmp_path, world, "users", name=name)

    assert request.format == common_pb2.FileFormat.Value(f"FILE_FORMAT_{file_format}")
    assert request.options.compression == common_pb2.Compression.Value(f"COMPRESSION_{compression}")
    assert request.export_type == exports_pb2.EXPORT_TYPE_ENTITY


def test_what_is_said_of_the_file_stands_over_its_ending(tmp_path: Path, world: World):
    request = _exported(tmp_path, world, "users", "--format", "jsonl", "--compression", "none", name="u.csv.gz")

    assert request.format == common_pb2.FILE_FORMAT_JSON_LINES
    assert request.options.compression == common_pb2.COMPRESSION_NONE


def test_all_is_a_full_export(tmp_path: Path, world: World):
    request = _exported(tmp_path, world, "--all", name="all.zip")

    assert request.export_type == exports_pb2.EXPORT_TYPE_FULL
    assert (list(request.entity_types), request.format) == ([], common_pb2.FILE_FORMAT_BUNDLE)


def test_several_entities_are_a_bundle(tmp_path: Path, world: World):
    request = _exported(tmp_path, world, "users", "tokens", name="some.zip")

    assert list(request.entity_types) == ["users", "tokens"]
    assert request.export_type == exports_pb2.EXPORT_TYPE_ENTITY


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--where", "age >= 18"], {"conditions": [parse_condition("age >= 18")]}),
        (
            ["--where", "status in A,B", "--where", "phone is null"],
            {"conditions": [parse_condition("status in A,B"), parse_condition("phone is null")]},
        ),
        (["--status", "ACTIVE", "--status", "INVITED"], {"statuses": ["ACTIVE", "INVITED"]}),
    ],
)
def test_a_filter_makes_it_partial(option: list[str], expected: dict, tmp_path: Path, world: World):
    request = _exported(tmp_path, world, "users", *option)

    assert request.export_type == exports_pb2.EXPORT_TYPE_PARTIAL
    assert request.filter == exports_pb2.ExportFilter(**expected)


@pytest.mark.parametrize("name", ["created", "updated"])
@pytest.mark.parametrize(("side", "end"), [("from", "start"), ("until", "end")])
def test_a_moment_makes_it_partial(name: str, side: str, end: str, tmp_path: Path, world: World):
    request = _exported(tmp_path, world, "users", f"--{name}-{side}", "2026-01-31")

    expected = exports_pb2.ExportFilter()
    getattr(getattr(expected, name), end).FromJsonString("2026-01-31T00:00:00Z")
    assert (request.filter, request.export_type) == (expected, exports_pb2.EXPORT_TYPE_PARTIAL)


def test_order_and_limit_make_it_partial(tmp_path: Path, world: World):
    ordered = _exported(tmp_path, world, "users", "--order", "created_at:desc,id")
    limited = _exported(tmp_path, world, "users", "--limit", "5")

    assert list(ordered.order_by) == [
        exports_pb2.FieldOrder(field="created_at", descending=True),
        exports_pb2.FieldOrder(field="id"),
    ]
    assert limited.limit == 5
    assert {ordered.export_type, limited.export_type} == {exports_pb2.EXPORT_TYPE_PARTIAL}
    assert not ordered.HasField("filter")


def test_the_other_options_stand_in_the_request(tmp_path: Path, world: World):
    command = ["--columns", "id, email", "--delimiter", "tab", "--no-formula-guard", "--reason", "why"]
    request = _exported(tmp_path, world, "users", *command)

    assert list(request.columns) == ["id", "email"]
    assert request.options.csv.delimiter == "\t"
    assert request.options.HasField("formula_guard")
    assert not request.options.formula_guard
    assert request.reason == "why"


@pytest.mark.parametrize(
    ("arguments", "name", "complaint"),
    [
        ([], "o.csv", "ENTITY is missing"),
        (["--all"], "o.csv", "--all makes a bundle"),
        (["--all", "users"], "o.zip", "--all takes everything"),
        (["--all", "--limit", "1"], "o.zip", "--all takes everything"),
        (["--all", "--columns", "id"], "o.zip", "--all takes everything"),
        (["users", "tokens"], "o.csv", "2 entities need a bundle"),
        (["users"], "o.zip.gz", "compressed by itself"),
        (
            ["users"],
            "o.doc",
            "o.doc: found the ending .doc, expected .csv, .json, .jsonl, .ndjson, .zip; or give --format",
        ),
        (["users", "--compression", "rar"], "o.csv", "'rar' is no compression; expected none, gzip or zstd"),
        (["users", "--where", "age ~ 5"], "o.csv", "--where: 'age ~ 5': found '~ 5' behind the field"),
        (["users", "--order", "a:up"], "o.csv", "--order: 'a:up': found 'up' behind a"),
        (["users", "--created-from", "soon"], "o.csv", "--created-from: found 'soon', expected a date"),
    ],
)
def test_what_cannot_be_is_exit_code_2_before_anything_is_started(
    arguments: list[str], name: str, complaint: str, tmp_path: Path, world: World, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "500")

    assert main(["export", *arguments, "-o", str(tmp_path / name)]) == 2
    assert complaint in capsys.readouterr().err
    assert not world.created_exports


@pytest.mark.parametrize(
    ("name", "option", "told"),
    [
        ("o.csv", [], True),
        ("o.csv.gz", [], True),
        ("o.csv", ["--no-formula-guard"], False),
        ("o.csv", ["-q"], False),
        ("o.json", [], False),
    ],
)
def test_the_formula_guard_is_told_once(name: str, option: list[str], told: bool, tmp_path: Path, capsys):
    assert main(["export", "users", "-o", str(tmp_path / name), *option]) == 0

    said = [line for line in capsys.readouterr().err.splitlines() if "--undo-formula-guard" in line]
    assert len(said) == told


def test_json_is_one_document(world: World, tmp_path: Path, capsys):
    world.export = b"id\n"

    assert main(["export", "users", "-o", str(tmp_path / "o.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["export_id"] == EXPORT_ID


def test_an_export_that_waits_says_for_what(world: World, tmp_path: Path, capsys):
    world.other_jobs[OTHER_JOB_ID] = jobs_pb2.Job(job_id=OTHER_JOB_ID, kind=jobs_pb2.JOB_KIND_IMPORT_APPLY)
    waits = jobs_pb2.JobStateChange(new_state=jobs_pb2.JOB_STATE_PENDING, blocked_by=[OTHER_JOB_ID])
    runs = jobs_pb2.JobStateChange(new_state=jobs_pb2.JOB_STATE_RUNNING, attempt=1)
    world.events = [
        jobs_pb2.JobEvent(job_id=JOB_ID, sequence=n, state_change=change) for n, change in enumerate([waits, runs], 1)
    ]
    world.job.last_sequence = 2

    assert main(["export", "users", "-o", str(tmp_path / "o.csv")]) == 0
    assert f"waits: for IMPORT_APPLY job {OTHER_JOB_ID}" in capsys.readouterr().err


def test_an_export_that_fails_says_why(world: World, client: DataOps, tmp_path: Path):
    world.export_fails = True
    world.job.state = jobs_pb2.JOB_STATE_FAILED
    world.job.error.reason = "STORAGE_FULL"

    with pytest.raises(JobFailed, match="STORAGE_FULL"):
        client.export_to(tmp_path / "o.csv", ["users"])


@pytest.mark.parametrize(
    ("name", "given", "file_format", "compression"),
    [
        ("py.json", {}, common_pb2.FILE_FORMAT_JSON, common_pb2.COMPRESSION_UNSPECIFIED),
        ("py.jsonl.GZ", {}, common_pb2.FILE_FORMAT_JSON_LINES, common_pb2.COMPRESSION_GZIP),
        ("py.csv.zst", {}, common_pb2.FILE_FORMAT_CSV, common_pb2.COMPRESSION_ZSTD),
        ("py", {}, common_pb2.FILE_FORMAT_CSV, common_pb2.COMPRESSION_UNSPECIFIED),
        ("py.zip", {}, common_pb2.FILE_FORMAT_BUNDLE, common_pb2.COMPRESSION_UNSPECIFIED),
        (
            "py.json.gz",
            {"file_format": common_pb2.FILE_FORMAT_CSV, "compression": common_pb2.COMPRESSION_NONE},
            common_pb2.FILE_FORMAT_CSV,
            common_pb2.COMPRESSION_NONE,
        ),
        (
            "py.json",
            {"options": exports_pb2.ExportOptions(compression=common_pb2.COMPRESSION_ZSTD)},
            common_pb2.FILE_FORMAT_JSON,
            common_pb2.COMPRESSION_ZSTD,
        ),
    ],
)
def test_a_program_gets_what_the_files_name_says(
    name: str, given: dict[str, Any], file_format: int, compression: int, client: DataOps, world: World, tmp_path: Path
):
    client.export_to(tmp_path / name, ["users"], **given)

    (request,) = world.created_exports
    assert (request.format, request.options.compression) == (file_format, compression)


def test_a_program_is_refused_an_ending_that_is_none(client: DataOps, world: World, tmp_path: Path):
    with pytest.raises(ValueError, match=r"o\.doc: found the ending \.doc, expected \.csv, "):
        client.export_to(tmp_path / "o.doc", ["users"])
    assert not world.created_exports


def _holds_some(part: Path) -> bool:
    """What the server has sent, the client need not have written yet."""
    return part.exists() and part.stat().st_size > 0


def test_an_interrupted_download_goes_on_in_the_next_process(world: World, tmp_path: Path, capsys):
    world.export = os.urandom(500_000)
    world.stall_export_at = 200_000
    path = tmp_path / "o.csv"
    part = tmp_path / f".o.csv.{EXPORT_ID}.part"
    command = ["exports", "download", EXPORT_ID, "-o", str(path), "-q"]

    got, _, err = interrupted(command, lambda: world.stall_export_at is None and _holds_some(part))

    assert got == 130
    assert "the same command again goes on with the download" in err
    assert not path.exists()
    assert main([*command, "--json"]) == 0
    assert path.read_bytes() == world.export
    assert 0 < world.export_offsets[-1] <= 200_000
    assert json.loads(capsys.readouterr().out)["size_bytes"] == 500_000
    assert not part.exists()


def test_an_interrupted_export_is_fetched_by_what_it_says(world: World, tmp_path: Path):
    world.export = os.urandom(500_000)
    world.stall_export_at = 300_000
    path = tmp_path / "o.csv"
    part = tmp_path / f".o.csv.{EXPORT_ID}.part"
    command = ["export", "users", "-o", str(path)]

    got, out, err = interrupted(command, lambda: world.stall_export_at is None and _holds_some(part))

    said = f"exports download {EXPORT_ID} -o {path}"
    assert (got, out) == (130, "")
    assert f"dataops {said} fetches its file, dataops exports cancel {EXPORT_ID} stops it" in err
    assert main([*said.split(), "-q"]) == 0
    assert path.read_bytes() == world.export
    first, second = world.export_offsets
    assert first < second <= 300_000  # what was on its way when the command ended is sent again


def test_the_exports_are_listed_shown_cancelled_and_deleted(world: World, capsys):
    assert main(["exports", "list", "--entity", "users", "--status", "completed", "--limit", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["export_id"] == EXPORT_ID
    assert world.lists(exports_pb2.ListExportsRequest) == [
        exports_pb2.ListExportsRequest(page_size=3, entity_type="users", statuses=[exports_pb2.EXPORT_STATUS_COMPLETED])
    ]

    world.export_status = exports_pb2.EXPORT_STATUS_PENDING
    for verb in ("show", "cancel", "delete"):
        assert main(["exports", verb, EXPORT_ID]) == 0
        assert f"export    {EXPORT_ID}" in capsys.readouterr().out


def test_the_client_exports_a_part_and_everything(world: World, client: DataOps, tmp_path: Path):
    client.export_to(
        tmp_path / "o.csv.gz",
        ["users"],
        filter=exports_pb2.ExportFilter(statuses=["ACTIVE"]),
        order_by=[exports_pb2.FieldOrder(field="id")],
        limit=7,
        compression=common_pb2.COMPRESSION_GZIP,
    )
    client.export_all(tmp_path / "all.zip")

    part, full = world.created_exports
    assert (part.export_type, part.limit) == (exports_pb2.EXPORT_TYPE_PARTIAL, 7)
    assert part.options.compression == common_pb2.COMPRESSION_GZIP
    assert (full.export_type, full.format) == (exports_pb2.EXPORT_TYPE_FULL, common_pb2.FILE_FORMAT_BUNDLE)
