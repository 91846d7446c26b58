"""Prints what a command found, on standard output: tables for people, lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dataops_client.cli.plain import enum_word, plain, size_text

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2
    from google.protobuf.message import Message

    from dataops_client.download import Downloaded

_WIDEST = 240
_NUMBER = re.compile(r"\d[\d,]*")
_PAGE = 1000
"""Rows of one table on a terminal: its columns are as wide as what is in them, so all of it is held."""

_REPORT_COUNTS = ("inserted", "updated", "unchanged", "skipped", "failed", "deleted", "cascaded")


def as_json(value: Any) -> None:
    """One JSON document, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def as_json_line(value: Any) -> None:
    """One line of JSON, seen at once by whoever reads the pipe."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def messages_as_json(messages: Iterable[Message]) -> None:
    """A list of messages as one document, written as they come: there may be millions."""
    before = "[\n"
    for message in messages:
        text = json.dumps(plain(message), indent=2, ensure_ascii=False)
        print(before + "\n".join(f"  {line}" for line in text.split("\n")), end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; else tab-separated lines with a header."""
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(_cell(value) for value in row))
        return
    left = iter(rows)
    page = list(islice(left, _PAGE))
    _table(columns, page)
    while page := list(islice(left, _PAGE)):
        _table(columns, page)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns of nothing but numbers stand to the right."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        numbers = bool(rows) and all(_NUMBER.fullmatch(str(row[number])) for row in rows)
        shown.add_column(column, overflow="fold", no_wrap=number == 0, justify="right" if numbers else "left")
    for row in rows:
        shown.add_row(*(Text(_cell(value)) for value in row))  # as it is: a value may look like markup
    console = Console()
    unlimited = console.options.update(max_width=_WIDEST)
    needed = Measurement.get(console, unlimited, shown).minimum
    console.width = max(console.width, needed)  # a narrow terminal may break lines, but no id is cut in pieces
    console.print(shown)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line; empty ones are left out."""
    found = [(name, _cell(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in found), default=0)
    for name, value in found:
        print(f"{name:<{width}}  {value}")


def show_import(found: imports_pb2.Import) -> None:
    """Where an import stands that has neither a plan to decide about nor a report."""
    facts(
        [
            ("import", found.import_id),
            ("file", found.name),
            ("entity", found.entity_type or ", ".join(found.entity_types)),
            ("mode", enum_word(found, "import_type")),
            ("status", enum_word(found, "status")),
            ("error", f"{found.error.reason}: {found.error.message}" if found.HasField("error") else ""),
            *(("", f"{v.subject}: {v.description}") for v in found.error.violations),
            ("reason", found.context.reason),
        ]
    )


def show_report(done: imports_pb2.Import) -> None:
    """What an import did."""
    report = done.report
    facts(
        [
            ("import", done.import_id),
            ("status", enum_word(done, "status")),
            ("error", f"{done.error.reason}: {done.error.message}" if done.HasField("error") else ""),
            ("rows in file", f"{report.total_records:,}"),
            *(
                (name, f"{getattr(report, name):,}")
                for name in _REPORT_COUNTS
                if getattr(report, name) or name == "inserted"
            ),
            ("rows before", f"{report.rows_before:,}" if report.HasField("rows_before") else ""),
            ("rows after", f"{report.rows_after:,}" if report.HasField("rows_after") else ""),
            *((notice.code, notice.message) for notice in report.notices),
        ]
    )
    if len(report.entities) > 1:
        print()
        table(
            ("entity", *_REPORT_COUNTS),
            ((e.entity, *(f"{getattr(e, name):,}" for name in _REPORT_COUNTS)) for e in report.entities),
        )


def show_row_errors(found: Iterable[imports_pb2.ImportRowError]) -> None:
    """Rows that were not taken; of which entity, where there are several."""
    errors = list(found)
    several = len({e.entity for e in errors}) > 1
    table(
        (*(("entity",) if several else ()), "row", "severity", "code", "field", "message", "value"),
        (
            (
                *((e.entity,) if several else ()),
                *(e.row, enum_word(e, "severity"), e.code, e.field, e.message),
                e.value if e.HasField("value") else "NULL",
            )
            for e in errors
        ),
    )


def show_downloaded(got: Downloaded, *, as_json: bool) -> None:
    """A file that arrived."""
    if as_json:
        print(json.dumps({"file": str(got.path), "size_bytes": got.size, "sha256": got.sha256.hex()}, indent=2))
    else:
        print(f"{size(got.size)} in {got.path}, sha256 {got.sha256.hex()}")


def complain(text: str) -> None:
    """One line on standard error, whatever stands in the text."""
    print(f"dataops: {' '.join(_cell(text).split())}", file=sys.stderr)


def remark(text: str) -> None:
    """One line on standard error that is no complaint, or goes on with one."""
    print(_cell(text), file=sys.stderr)


def size(value: int) -> str:
    """Bytes for a person."""
    return size_text(value)


def _cell(value: Any) -> str:
    """One cell: nothing in it may break the line or the table, or steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))
