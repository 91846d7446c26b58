"""The options of `dataops import`, and the request they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataops_client.cli.options import FORMATS, chosen, delimiter_of, file_to_write, format_word

if TYPE_CHECKING:
    from dataops.v1 import common_pb2, imports_pb2

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The file.")]
EntityOption = Annotated[str, typer.Option(help="The entity to import into; a bundle (.zip) needs none.")]
ModeOption = Annotated[str, typer.Option(help="additive, upsert or replace.")]
FormatOption = Annotated[str, typer.Option("--format", help="csv, json, jsonl, bundle; else from the file's name.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Apply the plan without asking.")]
PlanOnlyOption = Annotated[bool, typer.Option("--plan-only", help="Show what would happen, and stop.")]
AutoApplyOption = Annotated[
    bool, typer.Option("--auto-apply", help="Let the server apply the plan as soon as it is made, without a look.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 8 if any row of the file failed.")]
DeletesOption = Annotated[
    int | None, typer.Option("--confirm-deletes", min=0, help="Repeat the number of deletes that the plan says.")
]
KeyOption = Annotated[
    str, typer.Option("--key", help="Unique fields that tell rows apart, with commas between; else the entity's key.")
]
MappingOption = Annotated[
    Path | None,
    typer.Option("--mapping", exists=True, dir_okay=False, help="Mapping file, TOML or JSON: docs/mapping.md."),
]
MapOption = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, where they differ; repeatable.")]
IgnoreOption = Annotated[list[str] | None, typer.Option("--ignore", help="Leave this column out; repeatable.")]
CascadeOption = Annotated[
    list[str] | None,
    typer.Option("--allow-cascade", help="Entity that foreign keys may change by themselves; repeatable."),
]
MaxDeletesOption = Annotated[
    int | None, typer.Option(min=0, help="Deletes that need no repeated number; else 10 % or 1,000 rows.")
]
BudgetOption = Annotated[
    int | None, typer.Option("--error-budget", min=0, help="Bear at most so many bad rows; else any, none for replace.")
]
DriftOption = Annotated[
    str, typer.Option("--on-drift", help="If rows moved since the plan: abort, skip-moved, or replan (--auto-apply).")
]
RefusedOption = Annotated[str, typer.Option("--on-refused", help="If the database refuses a row: abort or skip.")]
AbsentOption = Annotated[bool, typer.Option("--absent-is-null", help="Take a field that a JSON record lacks for null.")]
DelimiterOption = Annotated[str, typer.Option(help="Character between the cells of a CSV file: , ; | or tab.")]
QuoteOption = Annotated[str, typer.Option("--quote", help="Character around the cells of a CSV file: \" or '.")]
NullOption = Annotated[str | None, typer.Option("--null", help="Unquoted text that stands for NULL.")]
EncodingOption = Annotated[str, typer.Option(help="Encoding of a CSV file; utf-8 if not said.")]
GuardOption = Annotated[bool, typer.Option(help="The file was exported with the formula guard, and changed since.")]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Upload from the start, though an interrupted upload could go on.")
]
RejectsOption = Annotated[
    Path | None, typer.Option(dir_okay=False, callback=file_to_write, help="Write the rows not taken here.")
]
ChangesOption = Annotated[
    Path | None,
    typer.Option(dir_okay=False, callback=file_to_write, help="Write what the plan does to each row here, as CSV."),
]


def request_of(file: Path, given: Mapping[str, Any]) -> imports_pb2.CreateImportRequest:
    """The request for `file`; `given` holds the command's parameters by name. Nothing is sent yet.

    Raises:
        typer.BadParameter: an option has no such value, or two of them cannot go together.
    """
    from dataops.v1 import imports_pb2

    _refuse_pairs(given)
    request = imports_pb2.CreateImportRequest(
        entity_type=given["entity"],
        name=file.name,
        format=_format(given["file_format"]),
        mapping=_mapping(given["mapping"], given["column"] or (), given["ignore"] or ()),
        options=_options(given),
        reason=given["reason"],
    )
    (request.import_type,) = chosen([given["mode"]], imports_pb2.ImportType.Value, "IMPORT_TYPE_", "mode")
    _refuse_wrong_entity(file, request)
    return request


def _refuse_pairs(given: Mapping[str, Any]) -> None:
    if given["auto_apply"] and given["plan_only"]:
        raise typer.BadParameter("--plan-only and --auto-apply: found both, expected one of them")
    if given["on_drift"].lower() == "replan" and not given["auto_apply"]:
        raise typer.BadParameter("--on-drift replan goes with --auto-apply only: a new plan is one that nobody saw")


def _refuse_wrong_entity(file: Path, request: imports_pb2.CreateImportRequest) -> None:
    from dataops.v1 import common_pb2

    bundle = request.format == common_pb2.FILE_FORMAT_BUNDLE
    if not request.format and file.suffix.lower() == ".zip":
        bundle, request.format = True, common_pb2.FILE_FORMAT_BUNDLE
    if bundle and request.entity_type:
        raise typer.BadParameter("--entity: found beside a bundle, which names its entities itself")
    if not bundle and not request.entity_type:
        raise typer.BadParameter("--entity is missing; only a bundle (.zip) goes without it")
    if bundle and request.options.key_fields:
        raise typer.BadParameter("--key: found with a bundle, expected one entity")
    for step in request.mapping:
        if bundle != bool(step.entity):
            found = f"entities.{step.entity}" if step.entity else step.field or step.column
            expected = "a part for each entity" if bundle else f"the fields of {request.entity_type} alone"
            raise typer.BadParameter(f"mapping: found {found}, expected {expected}")


def _options(given: Mapping[str, Any]) -> imports_pb2.ImportOptions:
    from dataops.v1 import imports_pb2

    options = imports_pb2.ImportOptions(
        undo_formula_guard=given["undo_formula_guard"],
        error_budget=given["error_budget"],
        auto_apply=given["auto_apply"],
        allow_cascade=given["allow_cascade"] or (),
        max_deletes=given["max_deletes"],
        key_fields=[name.strip() for name in given["key"].split(",") if name.strip()],
    )
    (options.on_drift,) = chosen([given["on_drift"]], imports_pb2.OnDrift.Value, "ON_DRIFT_", "way to meet drift")
    if given["on_refused"]:
        (options.on_refused,) = chosen(
            [given["on_refused"]], imports_pb2.OnRefused.Value, "ON_REFUSED_", "way to meet refusals"
        )
    if given["absent_is_null"]:
        options.json.absent_is_null = True
    if given["delimiter"]:
        options.csv.delimiter = delimiter_of(given["delimiter"])
    if given["quote"]:
        options.csv.quote = given["quote"]
    if given["null_text"] is not None:
        options.csv.null_text = given["null_text"]
    if given["encoding"]:
        options.csv.encoding = given["encoding"]
    return options


def _format(word: str) -> common_pb2.FileFormat.ValueType:
    from dataops.v1 import common_pb2

    if not word:
        return common_pb2.FILE_FORMAT_UNSPECIFIED
    (found,) = chosen([format_word(word)], common_pb2.FileFormat.Value, "FILE_FORMAT_", "format", FORMATS)
    return found


def _mapping(file: str | Path | None, pairs: Sequence[str], ignored: Sequence[str]) -> list[imports_pb2.FieldMapping]:
    """The mapping file's steps, then --map and --ignore."""
    from dataops.v1 import imports_pb2

    from dataops_client.mapping import MappingFileError, read_mapping

    try:
        mapping = read_mapping(Path(file)) if file else []
    except MappingFileError as error:
        raise typer.BadParameter(f"--mapping: {error}") from error
    filled = {step.field for step in mapping if step.field}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not (field and equals and column):
            raise typer.BadParameter(f"--map {pair}: expected FIELD=COLUMN")
        if field in filled:
            raise typer.BadParameter(f"--map {pair}: {field} has another mapping already")
        filled.add(field)
        mapping.append(imports_pb2.FieldMapping(field=field, column=column))
    left_out = {step.column for step in mapping if not step.field}
    mapping.extend(imports_pb2.FieldMapping(column=column) for column in ignored if column not in left_out)
    return mapping
