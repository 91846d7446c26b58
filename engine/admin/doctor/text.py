"""The report for people: the gravest first, what mends each below it, what is well in a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from engine.admin.doctor.finding import OPERATIONS, Finding, Severity
from engine.admin.doctor.report import Report

WIDTH = 100
"""Of a finding's prose. SQL is never broken: it is to be copied."""

_HEADS = {
    Severity.ERROR: "ERROR: the service cannot do its work before this is mended",
    Severity.WARNING: "WARNING: something is refused, or will fail one day",
    Severity.NOTICE: "NOTICE: to know",
    Severity.OK: "OK",
}


def as_text(report: Report, *, everything: bool = False) -> str:
    """All findings but those that are OK, which are counted by their check; with `everything` they are shown too."""
    whom = f"database {report.database} as role {report.role}" if report.database else "no database"
    lines = [f"doctor: {whom}"]
    for severity in Severity:
        found = report.of_severity(severity)
        if found and (everything or severity is not Severity.OK):
            lines += ["", _HEADS[severity]]
            for alike in _alike(found):
                lines += _shown(alike)
    lines += ["", *_well(report), summary(report)]
    return "\n".join(lines) + "\n"


def summary(report: Report) -> str:
    """How many of each, in one line."""
    counted = (Severity.ERROR, Severity.WARNING, Severity.NOTICE)
    return ", ".join(f"{report.count(severity)} {severity}" for severity in counted)


def one_line(report: Report) -> str:
    """What is ERROR or WARNING, by the names of the checks; empty where nothing is."""
    said = []
    for severity in (Severity.ERROR, Severity.WARNING):
        if found := report.of_severity(severity):
            said.append(f"{len(found)} {severity} ({', '.join(dict.fromkeys(f.check for f in found))})")
    return " and ".join(said)


def _alike(findings: list[Finding]) -> list[list[Finding]]:
    """Findings that say the same of several subjects stand together: 200 tables may lack one right."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.check, finding.found, finding.means), []).append(finding)
    return list(found.values())


def _shown(alike: list[Finding]) -> Iterator[str]:
    first = alike[0]
    yield from _wrapped(f"{first.check}: {', '.join(f.subject for f in alike)}", "  ")
    yield from _wrapped(first.found, "    ")
    yield from _wrapped(first.means, "    ")
    sql = [line for f in alike for line in f.sql.rstrip().split("\n") if line]
    if sql:
        yield (
            "    to mend it, let the owner run:"
            if first.severity in (Severity.ERROR, Severity.WARNING)
            else "    what would change it:"
        )
        yield from (f"      {line}" for line in sql)


def _wrapped(prose: str, indent: str) -> list[str]:
    return textwrap.wrap(prose, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def _well(report: Report) -> Iterator[str]:
    well = [f.check for f in report.of_severity(Severity.OK) if f.check != "table"]
    if well:
        yield from _wrapped(f"OK: {', '.join(dict.fromkeys(well))}", "")
    if report.tables:
        whole = sum(len(report.works(table)) == len(OPERATIONS) for table in report.tables)
        yield f"tables: {whole:,} of {len(report.tables):,} take every operation"
