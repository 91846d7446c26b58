"""The options of `dataops export`, and the request they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dataops_client.cli.options import FORMATS, chosen, delimiter_of, format_word

if TYPE_CHECKING:
    from dataops.v1 import common_pb2, exports_pb2

EntitiesArgument = Annotated[
    list[str] | None, typer.Argument(help="What to export; several need a bundle (.zip).", metavar="ENTITY")
]
AllOption = Annotated[bool, typer.Option("--all", help="Every entity, as a bundle (.zip).")]
FormatOption = Annotated[
    str, typer.Option("--format", help="csv, json, jsonl or bundle; else from the file's ending (.csv.gz …).")
]
CompressionOption = Annotated[
    str, typer.Option("--compression", help="none, gzip or zstd; else from the file's ending (.gz, .zst).")
]
ColumnsOption = Annotated[str, typer.Option(help="Fields, with commas between; else all that are not secret.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="'FIELD OP VALUE'",
        help="Only rows for which this holds; all of several must. OP is one of = != < <= > >=, ^= (begins with), "
        'in, not-in (values with commas between), is null, is not null (no value). FIELD in "double quotes" and '
        "VALUE in 'single quotes' where they hold spaces or commas. 'status in ACTIVE,INVITED'",
    ),
]
FromOption = Annotated[str, typer.Option(metavar="WHEN", help="From this moment on: RFC 3339, or a date in UTC.")]
UntilOption = Annotated[str, typer.Option(metavar="WHEN", help="Before this moment: RFC 3339, or a date in UTC.")]
StatusOption = Annotated[list[str] | None, typer.Option("--status", help="Only in this status; repeatable.")]
OrderOption = Annotated[str, typer.Option("--order", metavar="FIELD[:desc],…", help="The order of the rows.")]
RowsOption = Annotated[int, typer.Option("--limit", min=0, help="At most so many rows of each entity; 0 for all.")]
DelimiterOption = Annotated[str, typer.Option(help="Character between the cells of a CSV file: , ; | or tab.")]
GuardOption = Annotated[bool, typer.Option(help="Keep spreadsheets from running text as a formula.")]

_COMPRESSIONS = ("none", "gzip", "zstd")

_T = TypeVar("_T")


def request_of(file: Path, given: Mapping[str, Any]) -> exports_pb2.CreateExportRequest:
    """The request for an export into `file`; `given` holds the command's parameters by name. Nothing is sent yet.

    Raises:
        typer.BadParameter: an option has no such value, or two of them cannot go together.
    """
    from dataops.v1 import exports_pb2

    from dataops_client.conditions import parse_order

    request = exports_pb2.CreateExportRequest(
        export_type=exports_pb2.EXPORT_TYPE_FULL if given["everything"] else exports_pb2.EXPORT_TYPE_ENTITY,
        entity_types=given["entities"] or (),
        columns=[column.strip() for column in given["columns"].split(",") if column.strip()],
        filter=_filter(given),
        limit=given["limit"],
        reason=given["reason"],
    )
    if given["order"]:
        request.order_by.extend(_parsed("--order", given["order"], parse_order))
    if not request.filter.ByteSize():
        request.ClearField("filter")
    request.options.formula_guard = given["formula_guard"]
    if given["delimiter"]:
        request.options.csv.delimiter = delimiter_of(given["delimiter"])
    request.format, request.options.compression = _shape(file, given)
    _set_type(request)
    return request


def _set_type(request: exports_pb2.CreateExportRequest) -> None:
    """FULL, ENTITY or PARTIAL, and what does not go with it."""
    from dataops.v1 import common_pb2, exports_pb2

    full = request.export_type == exports_pb2.EXPORT_TYPE_FULL
    partial = bool(request.HasField("filter") or request.order_by or request.limit)
    bundle = request.format == common_pb2.FILE_FORMAT_BUNDLE
    if full and (partial or request.entity_types or request.columns):
        raise typer.BadParameter("--all takes everything: it goes without entities, columns, filters, order and limit")
    if full and not bundle:
        raise typer.BadParameter("--all makes a bundle: name a file with .zip, or give --format bundle")
    if not full and not request.entity_types:
        raise typer.BadParameter("ENTITY is missing; --all takes every entity")
    if len(request.entity_types) > 1 and not bundle:
        raise typer.BadParameter(
            f"{len(request.entity_types)} entities need a bundle: name a file with .zip, or give --format bundle"
        )
    if partial:
        request.export_type = exports_pb2.EXPORT_TYPE_PARTIAL


def _shape(
    file: Path, given: Mapping[str, Any]
) -> tuple[common_pb2.FileFormat.ValueType, common_pb2.Compression.ValueType]:
    """Format and compression, as said or from the ending of the file's name."""
    from dataops.v1 import common_pb2

    from dataops_client.names import compression_of, format_of

    compression, made = given["compression"], compression_of(file)
    if compression:
        (made,) = chosen([compression], common_pb2.Compression.Value, "COMPRESSION_", "compression", _COMPRESSIONS)
    if word := given["file_format"]:
        (number,) = chosen([format_word(word)], common_pb2.FileFormat.Value, "FILE_FORMAT_", "format", FORMATS)
    else:
        try:
            number = format_of(file)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; or give --format") from error
    if not made:
        return number, made
    if number == common_pb2.FILE_FORMAT_BUNDLE and made != common_pb2.COMPRESSION_NONE:
        raise typer.BadParameter(
            f"compression {compression or file.suffix}: found with a bundle, which is compressed by itself"
        )
    return number, made


def _filter(given: Mapping[str, Any]) -> exports_pb2.ExportFilter:
    from dataops.v1 import exports_pb2

    from dataops_client.conditions import parse_condition, parse_moment

    found = exports_pb2.ExportFilter(
        statuses=given["status"] or (),
        conditions=[_parsed("--where", text, parse_condition) for text in given["where"] or ()],
    )
    for name in ("created", "updated"):
        for side, end in (("from", "start"), ("until", "end")):
            text = given[f"{name}_{side}"]
            if text:
                moment = _parsed(f"--{name}-{side}", text, parse_moment)
                getattr(getattr(found, name), end).CopyFrom(moment)
    return found


def _parsed(option: str, text: str, parse: Callable[[str], _T]) -> _T:
    from dataops_client.conditions import ConditionError

    try:
        return parse(text)
    except ConditionError as error:
        raise typer.BadParameter(f"{option}: {error}") from error
