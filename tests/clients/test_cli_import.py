"""`dataops import` and `dataops imports`: each option in the request, the plan as it is shown, the decision."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from dataops.v1 import common_pb2, imports_pb2, jobs_pb2
from dataops_client import DataOps
from dataops_client.cli import main
from dataops_client.errors import FailedPrecondition

from tests.clients.fake_world import DIGEST, IMPORT_ID, JOB_ID, World
from tests.clients.plans import change

pytestmark = pytest.mark.usefixtures("configured")


def _request(world: World) -> imports_pb2.CreateImportRequest:
    (request,) = world.created_imports
    return request


GOLDEN = f"""\
import  {IMPORT_ID}
file    users.csv
mode    REPLACE
status  AWAITING_APPROVAL

entity\tinserts\tupdates\tunchanged\tdeletes\tskips\tfailed\tby foreign keys\trows before -> after
users\t1,200\t40\t12\t1,234\t2\t1\t0\t5,000 -> 4,966
tokens\t0\t0\t0\t0\t0\t0\t7\t90 -> 83
all\t1,200\t40\t12\t1,234\t2\t1\t7\t

updated fields of users (40 rows, found by email):
  name   40
  phone  3
! name changes in every one of the 40 updated rows: is its column the right one?

foreign keys by themselves:
  tokens  7 rows, DELETE CASCADE (tokens_user_id_fkey)

locks     users: others can read, writers wait about 3 s
locks     tokens: others read and write on; whoever writes one of these rows waits about 3 s
assigned  users.id, users.created_at by the database when it is applied
deletes   their number must be repeated: 1234
expires   2026-11-27 02:30 UTC
notice    ! CHECKED_AT_APPLY: one check
notice    LOOKED_UP: 3 references

some of the changes:
row\tkind\tentity\tkey\tchange
\tDELETE\tusers\t0@example.org\tname = gone
\tDELETE\tusers\t1@example.org\tname = gone
\tDELETE\tusers\t2@example.org\tname = gone
\tCASCADE\ttokens\t0@example.org\tname: gone -> NULL
\tCASCADE\ttokens\t1@example.org\tname: gone -> NULL
\tCASCADE\ttokens\t2@example.org\tname: gone -> NULL
2\tUPDATE\tusers\t0@example.org\tname: a b -> 'NULL', phone: NULL -> ''
3\tUPDATE\tusers\t1@example.org\tname: a b -> 'NULL', phone: NULL -> ''
2\tINSERT\tusers\t0@example.org\tname = n0, phone = NULL, password_hash: (secret)
3\tINSERT\tusers\t1@example.org\tname = n1, phone = NULL, password_hash: (secret)

rows not taken: 1 failed, 2 skipped; the first of them:
row\tseverity\tcode\tfield\tmessage\tvalue
7\tFAILED\tINVALID_VALUE\temail\tno address\ta b [31m
3\tSKIPPED\tKEY_EXISTS\tid\tis there\tNULL
4\tSKIPPED\tKEY_EXISTS\tid\tis there\tNULL

nothing is changed; to apply it: dataops imports apply {IMPORT_ID}
"""


def _skip_two(world: World) -> None:
    for row in (3, 4):
        world.row_errors.append(
            imports_pb2.ImportRowError(
                row=row,
                field="id",
                code="KEY_EXISTS",
                message="is there",
                severity=imports_pb2.ROW_ERROR_SEVERITY_SKIPPED,
            )
        )


def test_the_plan_is_shown_whole(planned: imports_pb2.Import, users_csv: Path, world: World, capsys):
    _skip_two(world)
    assert main(["import", str(users_csv), "--entity", "users", "--plan-only", "-q"]) == 0

    assert capsys.readouterr().out == GOLDEN


def test_rows_that_are_only_skipped_are_listed_too(users_csv: Path, world: World, capsys):
    world.row_errors.clear()
    _skip_two(world)
    world.imported.failed_records = 0
    world.imported.plan.counts.failed, world.imported.plan.counts.skips = 0, 2

    assert main(["import", str(users_csv), "--entity", "users", "--plan-only", "-q"]) == 0

    out = capsys.readouterr().out
    assert "rows not taken: 2 skipped; the first of them:" in out
    assert "4\tSKIPPED\tKEY_EXISTS" in out


def test_a_field_that_changes_in_few_rows_is_no_alarm(planned: imports_pb2.Import, capsys):
    planned.plan.entities[0].counts.updates = 20
    planned.plan.entities[0].updated_fields[0].rows = 20
    planned.ClearField("report")

    assert main(["imports", "show", IMPORT_ID]) == 0
    assert "every one" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        (["--mode", "upsert"], "import_type", imports_pb2.IMPORT_TYPE_UPSERT),
        (["--mode", "REPLACE"], "import_type", imports_pb2.IMPORT_TYPE_REPLACE),
        (["--format", "jsonl"], "format", common_pb2.FILE_FORMAT_JSON_LINES),
        (["--reason", "why"], "reason", "why"),
        (["--key", "email, name"], "options.key_fields", ["email", "name"]),
        (["--map", "name=Full=name"], "mapping", [imports_pb2.FieldMapping(field="name", column="Full=name")]),
        (["--ignore", "a", "--ignore", "b"], "mapping", [imports_pb2.FieldMapping(column=c) for c in "ab"]),
        (["--allow-cascade", "tokens", "--allow-cascade", "x"], "options.allow_cascade", ["tokens", "x"]),
        (["--max-deletes", "5"], "options.max_deletes", 5),
        (["--error-budget", "0"], "options.error_budget", 0),
        (["--on-drift", "skip-moved"], "options.on_drift", imports_pb2.ON_DRIFT_SKIP_MOVED),
        (["--on-drift", "replan", "--auto-apply"], "options.on_drift", imports_pb2.ON_DRIFT_REPLAN),
        (["--on-refused", "skip"], "options.on_refused", imports_pb2.ON_REFUSED_SKIP),
        (["--auto-apply"], "options.auto_apply", True),
        (["--absent-is-null"], "options.json.absent_is_null", True),
        (["--delimiter", "tab"], "options.csv.delimiter", "\t"),
        (["--delimiter", ";"], "options.csv.delimiter", ";"),
        (["--quote", "'"], "options.csv.quote", "'"),
        (["--encoding", "latin1"], "options.csv.encoding", "latin1"),
        (["--null", "\\N"], "options.csv.null_text", "\\N"),
        (["--undo-formula-guard"], "options.undo_formula_guard", True),
    ],
)
def test_an_option_stands_in_the_request(option: list[str], field: str, value: object, users_csv: Path, world: World):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "-q", *option]) == 0

    found: object = _request(world)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


def test_what_is_not_said_is_left_to_the_server(users_csv: Path, world: World):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "-q"]) == 0

    request = _request(world)
    assert request.import_type == imports_pb2.IMPORT_TYPE_ADDITIVE
    assert not request.mapping
    assert request.options == imports_pb2.ImportOptions(on_drift=imports_pb2.ON_DRIFT_ABORT)


def test_a_mapping_file_comes_before_map_and_ignore(users_csv: Path, world: World, tmp_path: Path):
    mapping = tmp_path / "m.toml"
    mapping.write_text('ignore = ["x"]\n[fields.email]\ntrim = true\n')

    command = ["import", str(users_csv), "--entity", "users", "--yes", "-q", "--mapping", str(mapping)]
    assert main([*command, "--map", "name=N", "--ignore", "x", "--ignore", "y"]) == 0

    assert list(_request(world).mapping) == [
        imports_pb2.FieldMapping(field="email", column="email", trim=True),
        imports_pb2.FieldMapping(column="x"),
        imports_pb2.FieldMapping(field="name", column="N"),
        imports_pb2.FieldMapping(column="y"),
    ]


def test_a_bundle_needs_no_entity(tmp_path: Path, world: World):
    bundle = tmp_path / "all.zip"
    bundle.write_bytes(b"PK")

    assert main(["import", str(bundle), "--yes", "-q"]) == 0
    assert (_request(world).entity_type, _request(world).format) == ("", common_pb2.FILE_FORMAT_BUNDLE)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--plan-only", "--auto-apply"], "found both"),
        (["--on-drift", "replan"], "with --auto-apply only"),
        (["--on-drift", "wait"], "'wait' is no way to meet drift; expected abort, skip-moved or replan"),
        (["--mode", "unspecified"], "'unspecified' is no mode"),
        (["--format", "bundle"], "found beside a bundle"),
        (["--map", "email=A", "--map", "email=B"], "email has another mapping already"),
        (["--max-deletes", "-1"], "Invalid value for '--max-deletes'"),
        (["--mapping", "nowhere.toml"], "nowhere.toml"),
        (["--rejects", "nowhere/r.csv"], "there is no folder"),
    ],
)
def test_options_that_cannot_be_are_exit_code_2(
    option: list[str], complaint: str, users_csv: Path, world: World, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "500")

    assert main(["import", str(users_csv), "--entity", "users", *option]) == 2
    assert complaint in capsys.readouterr().err
    assert not world.uploads


def test_a_wrong_mapping_file_is_exit_code_2_with_the_place(users_csv: Path, world: World, tmp_path: Path, capsys):
    mapping = tmp_path / "m.toml"
    mapping.write_text("[fields.email]\ntirm = true\n")

    assert main(["import", str(users_csv), "--entity", "users", "--mapping", str(mapping)]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "m.toml: fields.email.tirm: found an unknown key, expected trim?" in said
    assert not world.uploads


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--key", "email"], "--key: found with a bundle, expected one entity"),
        (["--map", "email=E"], "mapping: found email, expected a part for each entity"),
        (["--ignore", "E"], "mapping: found E, expected a part for each entity"),
    ],
)
def test_what_is_of_one_entity_is_refused_for_a_bundle(option: list[str], complaint: str, tmp_path: Path, capsys):
    bundle = tmp_path / "all.zip"
    bundle.write_bytes(b"PK")

    assert main(["import", str(bundle), *option]) == 2
    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_bundles_mapping_is_for_a_bundle(users_csv: Path, tmp_path: Path, world: World, capsys):
    mapping, bundle = tmp_path / "m.toml", tmp_path / "all.zip"
    mapping.write_text('entities.users.fields.email = "E"\n')
    bundle.write_bytes(b"PK")

    assert main(["import", str(bundle), "--mapping", str(mapping), "--yes", "-q"]) == 0
    assert list(_request(world).mapping) == [imports_pb2.FieldMapping(field="email", column="E", entity="users")]
    assert main(["import", str(users_csv), "--entity", "users", "--mapping", str(mapping)]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "mapping: found entities.users, expected the fields of users alone" in said


def test_one_entity_without_a_name_is_exit_code_2(users_csv: Path, capsys):
    assert main(["import", str(users_csv)]) == 2
    assert "--entity is missing" in capsys.readouterr().err


def test_an_import_that_applies_itself_is_followed_to_its_end(users_csv: Path, world: World, capsys):
    world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED
    world.imported.apply_job_id = JOB_ID

    assert main(["import", str(users_csv), "--entity", "users", "--auto-apply", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "COMPLETED"
    assert not world.applied_with


def test_rejects_and_changes_are_written(users_csv: Path, world: World, tmp_path: Path):
    world.parts = {imports_pb2.REPORT_PART_REJECTS: b"rejects", imports_pb2.REPORT_PART_CHANGES: b"changes"}
    world.imported.report.parts.append(imports_pb2.REPORT_PART_REJECTS)
    rejects, changes = tmp_path / "r.csv", tmp_path / "c.csv"

    command = ["import", str(users_csv), "--entity", "users", "--plan-only", "-q"]
    assert main([*command, "--rejects", str(rejects), "--changes", str(changes)]) == 0

    assert (rejects.read_bytes(), changes.read_bytes()) == (b"rejects", b"changes")


def test_without_refused_rows_the_report_is_shown_and_an_older_file_stays(
    users_csv: Path, world: World, tmp_path: Path, capsys
):
    world.imported.failed_records = 5  # skipped: the mode leaves them, and no file has them
    world.imported.report.failed, world.imported.report.skipped = 0, 5
    rejects = tmp_path / "r.csv"
    command = ["import", str(users_csv), "--entity", "users", "--yes", "-q", "--rejects", str(rejects)]

    assert main(command) == 0
    captured = capsys.readouterr()
    assert "skipped       5" in captured.out
    assert captured.err == f"dataops: no rows to write into {rejects}\n"
    assert not rejects.exists()

    rejects.write_text("of an earlier run")
    assert main(command) == 0
    expected = f"dataops: no rows to write into {rejects}; the file of that name is left as it was\n"
    assert capsys.readouterr().err == expected
    assert rejects.read_text() == "of an earlier run"


def test_how_many_rows_were_refused_is_said_after_the_report(users_csv: Path, world: World, tmp_path: Path, capsys):
    world.parts = {imports_pb2.REPORT_PART_REJECTS: b"rejects"}
    world.imported.report.parts.append(imports_pb2.REPORT_PART_REJECTS)
    command = ["import", str(users_csv), "--entity", "users", "--yes", "-q", "--strict"]

    assert main([*command, "--rejects", str(tmp_path / "r.csv")]) == 8

    captured = capsys.readouterr()
    assert "failed        1" in captured.out
    assert captured.err == f"1 refused row in {tmp_path / 'r.csv'}\n"


def test_a_bundle_has_no_reject_file_and_says_where_its_rows_are(world: World, tmp_path: Path, capsys):
    bundle = tmp_path / "all.zip"
    bundle.write_bytes(b"PK")
    world.imported.format = common_pb2.FILE_FORMAT_BUNDLE

    assert main(["import", str(bundle), "--yes", "-q", "--rejects", str(tmp_path / "r.csv")]) == 0

    said = f"dataops: a bundle has no reject file: dataops imports errors {IMPORT_ID} lists its 1 refused rows\n"
    assert capsys.readouterr().err == said


def test_a_failed_plan_without_rejects_says_so(users_csv: Path, world: World, tmp_path: Path, capsys):
    world.job.state = jobs_pb2.JOB_STATE_FAILED

    command = ["import", str(users_csv), "--entity", "users", "-q", "--rejects", str(tmp_path / "r.csv")]
    assert main(command) == 1
    assert f"no rows to write into {tmp_path / 'r.csv'}" in capsys.readouterr().err


def test_rejects_are_written_though_the_plan_failed(users_csv: Path, world: World, tmp_path: Path, capsys):
    world.parts = {imports_pb2.REPORT_PART_REJECTS: b"rejects"}
    world.job.state = jobs_pb2.JOB_STATE_FAILED
    world.job.error.reason = "ERROR_BUDGET_EXCEEDED"

    command = ["import", str(users_csv), "--entity", "users", "-q", "--rejects", str(tmp_path / "r.csv")]
    assert main(command) == 5

    assert (tmp_path / "r.csv").read_bytes() == b"rejects"
    assert "ERROR_BUDGET_EXCEEDED" in capsys.readouterr().err


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize("says_when", [True, False])
def test_a_part_that_is_being_made_is_waited_for(
    code: grpc.StatusCode, says_when: bool, world: World, tmp_path: Path, capsys
):
    world.parts = {imports_pb2.REPORT_PART_CHANGES: b"row,kind\n"}
    world.being_made, world.being_made_as, world.being_made_says_when = 2, code, says_when
    path = tmp_path / "changes.csv"

    assert main(["imports", "report", IMPORT_ID, "-o", str(path), "--part", "changes", "--json"]) == 0

    captured = capsys.readouterr()
    assert path.read_bytes() == b"row,kind\n"
    assert json.loads(captured.out)["size_bytes"] == 9
    assert "waits: for the file to be made" in captured.err
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_part_that_is_never_made_is_given_up(world: World, client: DataOps, tmp_path: Path):
    world.being_made = 1_000_000
    path = tmp_path / "changes.csv"

    with pytest.raises(FailedPrecondition, match="REPORT_PART_BEING_MADE"):
        client.download_report(IMPORT_ID, imports_pb2.REPORT_PART_CHANGES, path, patience=0.5)
    assert not list(tmp_path.glob("*changes.csv*"))


def test_a_part_that_there_is_not_is_exit_code_4_and_leaves_nothing(tmp_path: Path, capsys):
    assert main(["imports", "report", IMPORT_ID, "-o", str(tmp_path / "r.json"), "-q"]) == 4
    assert "REPORT_PART_MISSING" in capsys.readouterr().err
    assert not list(tmp_path.glob("*r.json*"))


def test_the_imports_are_listed_with_filters(world: World, capsys):
    assert main(["imports", "list", "--entity", "users", "--status", "completed", "--limit", "3", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)[0]["import_id"] == IMPORT_ID
    assert world.lists(imports_pb2.ListImportsRequest) == [
        imports_pb2.ListImportsRequest(page_size=3, entity_type="users", statuses=[imports_pb2.IMPORT_STATUS_COMPLETED])
    ]


def test_changes_are_filtered_and_paged_only_as_far_as_they_are_shown(
    planned: imports_pb2.Import, world: World, capsys
):
    command = ["imports", "changes", IMPORT_ID, "--kind", "update", "--entity", "users", "--field", "phone"]
    assert main([*command, "--limit", "3"]) == 0

    lines = capsys.readouterr().out.splitlines()
    (asked,) = world.lists(imports_pb2.ListImportChangesRequest)
    assert [line.split("\t")[:2] for line in lines[1:]] == [["2", "UPDATE"], ["3", "UPDATE"], ["4", "UPDATE"]]
    assert asked == imports_pb2.ListImportChangesRequest(
        import_id=IMPORT_ID, page_size=3, kind=imports_pb2.CHANGE_KIND_UPDATE, entity="users", field="phone"
    )


def test_all_changes_come_page_by_page(planned: imports_pb2.Import, world: World, capsys):
    world.changes = [change(imports_pb2.CHANGE_KIND_INSERT, row) for row in range(2500)]

    assert main(["imports", "changes", IMPORT_ID, "--limit", "0", "-o", "json"]) == 0

    assert [c["row"] for c in json.loads(capsys.readouterr().out)] == list(range(2, 2502))
    assert [r.page_size for r in world.lists(imports_pb2.ListImportChangesRequest)] == [1000] * 3  # type: ignore[attr-defined]


def test_no_changes_are_an_empty_document(capsys):
    assert main(["imports", "changes", IMPORT_ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_errors_are_filtered(world: World, capsys):
    command = ["imports", "errors", IMPORT_ID, "--code", "invalid_value", "--severity", "failed", "--limit", "5"]
    assert main([*command, "--json"]) == 0
    assert [e["row"] for e in json.loads(capsys.readouterr().out)] == [7]

    assert main(["imports", "errors", IMPORT_ID, "--severity", "skipped", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []

    assert main(["imports", "errors", IMPORT_ID, "--severity", "mild"]) == 2


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["errors", IMPORT_ID, "--entity", "user"], "--entity user: the import has no such entity; expected users"),
        (["changes", IMPORT_ID, "--entity", "user"], "--entity user: the import has no such entity; expected users"),
        (["changes", IMPORT_ID, "--field", "mail"], "--field mail: no field of users; expected email, name or phone"),
    ],
)
def test_a_filter_that_can_find_nothing_is_refused(command: list[str], complaint: str, world: World, capsys):
    assert main(["imports", *command]) == 2
    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not world.asked


@pytest.mark.parametrize("verb", [["show"], ["apply", "--yes"]])
def test_a_failed_import_shows_its_file_its_mode_and_why(verb: list[str], world: World, capsys):
    world.imported.status = imports_pb2.IMPORT_STATUS_FAILED
    world.imported.ClearField("report")
    world.imported.ClearField("plan")
    world.imported.name, world.imported.import_type = "people.csv", imports_pb2.IMPORT_TYPE_UPSERT
    world.imported.error.reason, world.imported.error.message = "FILE_EMPTY", "no content"
    world.imported.context.reason = "nightly"

    assert main(["imports", verb[0], IMPORT_ID, *verb[1:]]) == (0 if verb == ["show"] else 5)

    out = capsys.readouterr().out
    assert out.startswith(
        f"import  {IMPORT_ID}\nfile    people.csv\nentity  users\nmode    UPSERT\nstatus  FAILED\n"
        "error   FILE_EMPTY: no content\nreason  nightly\n"
    )
    assert not world.applied_with
    if verb != ["show"]:
        assert "nothing was done: it is FAILED; only AWAITING_APPROVAL can be applied" in out


def test_an_import_is_cancelled(capsys):
    assert main(["imports", "cancel", IMPORT_ID, "--reason", "no", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "CANCELLED"


def test_what_was_applied_is_not_applied_again(world: World, capsys):
    world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED

    assert main(["imports", "apply", IMPORT_ID, "--yes", "--json"]) == 0
    assert not world.applied_with
    assert world.imported.plan.plan_digest == DIGEST


def test_the_client_plans_with_mapping_and_keys_and_takes_bundles(
    client: DataOps, world: World, users_csv: Path, planned: imports_pb2.Import
):
    options = imports_pb2.ImportOptions(max_deletes=5)
    mapping = [imports_pb2.FieldMapping(field="email", column="E", trim=True)]

    client.plan_import(users_csv, "users", mapping=mapping, key_fields=["email"], options=options, name="n")
    client.import_bundle(users_csv, import_type=imports_pb2.IMPORT_TYPE_UPSERT)
    deleted = list(client.import_changes(IMPORT_ID, kind=imports_pb2.CHANGE_KIND_DELETE, page_size=7))

    one, bundle = world.created_imports
    assert (list(one.mapping), list(one.options.key_fields), one.options.max_deletes) == (mapping, ["email"], 5)
    assert not options.key_fields
    assert (one.name, one.entity_type) == ("n", "users")
    assert (bundle.entity_type, bundle.format) == ("", common_pb2.FILE_FORMAT_BUNDLE)
    assert len(deleted) == 20


def test_a_report_of_many_entities_has_a_line_for_each(world: World, capsys):
    for entity in ("users", "tokens"):
        world.imported.report.entities.add(entity=entity, inserted=1000)

    assert main(["imports", "show", IMPORT_ID]) == 0
    assert "tokens\t1,000\t0\t0\t0\t0\t0\t0" in capsys.readouterr().out
