"""Prints what a command found, on standard output: tables for people, lines for pipes, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dataops_client.cli.plain import enum_word, plain, size_text

if TYPE_CHECKING:
    from dataops.v1 import imports_pb2
    from google.protobuf.message import Message

_PLAN_COUNTS = ("inserts", "updates", "unchanged", "deletes", "skips", "failed")
_WIDEST = 240
_REPORT_COUNTS = ("inserted", "updated", "unchanged", "skipped", "failed", "deleted", "cascaded")


def as_json(value: Any) -> None:
    """One JSON document, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def as_json_line(value: Any) -> None:
    """One line of JSON, seen at once by whoever reads the pipe."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def messages_as_json(messages: Iterable[Message]) -> None:
    """A list of messages as one document."""
    as_json([plain(message) for message in messages])


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on a terminal; else tab-separated lines with a header."""
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(_cell(value) for value in row))
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=number == 0)
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


def show_plan(planned: imports_pb2.Import) -> None:
    """What an import will do, for a person who decides about it."""
    plan = planned.plan
    counts = [(name, getattr(plan.counts, name)) for name in _PLAN_COUNTS]
    facts(
        [
            ("import", planned.import_id),
            ("status", enum_word(planned, "status")),
            ("entities", ", ".join(planned.entity_types)),
            *((name, f"{count:,}") for name, count in counts if count or name in ("inserts", "failed")),
            ("locks", enum_word(plan, "lock_mode")),
            ("lock time", f"about {plan.lock_duration.seconds} s" if plan.HasField("lock_duration") else ""),
            ("assigned", ", ".join(plan.server_assigned_fields)),
            ("expires", plan.expires_at.ToJsonString() if plan.HasField("expires_at") else ""),
            *((notice.code, notice.message) for notice in plan.notices),
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


def show_row_errors(found: Iterable[imports_pb2.ImportRowError]) -> None:
    """Rows that were not taken."""
    table(
        ("row", "severity", "code", "field", "message", "value"),
        (
            (e.row, enum_word(e, "severity"), e.code, e.field, e.message, e.value if e.HasField("value") else "NULL")
            for e in found
        ),
    )


def size(value: int) -> str:
    """Bytes for a person."""
    return size_text(value)


def _cell(value: Any) -> str:
    """One cell: nothing in it may break the line or the table, or steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in str(value))
