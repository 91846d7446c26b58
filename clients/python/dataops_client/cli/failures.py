"""What went wrong, in lines for a person at a command line: the server's words are those of the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataops_client.errors import DataOpsError, JobFailed

_PHRASES = {
    "a mapping to no field leaves it out": "--ignore COLUMN leaves it out",
    "are no part of allow_cascade, or of the file itself": (
        "no --allow-cascade ENTITY allows it, nor are they in the file itself"
    ),
}
_OPTIONS = {
    "absent_is_null": "--absent-is-null",
    "allow_cascade": "--allow-cascade ENTITY",
    "confirmed_deletes": "--confirm-deletes N",
    "error_budget": "--error-budget N",
    "key_fields": "--key FIELD,FIELD",
    "confirmation_phrase": "--phrase TEXT",
    "max_deletes": "--max-deletes N",
    "max_losses": "--max-losses N",
    "renames": "--rename ENTITY.OLD=NEW",
    "undo_formula_guard": "--undo-formula-guard",
}
_OPTION = re.compile(rf"(?<!['\w.])(?:{'|'.join(_OPTIONS)})(?!['\w])")
"""A field of the request, not a column of that name, which stands in quotes."""

_HINTS = {
    "FILE_NOT_UTF8": "if it is a CSV file, --encoding NAME says how it is written (--encoding cp1252)",
    "FILE_NOT_ENCODED": "does --encoding name the right one?",
    "ERROR_BUDGET_EXCEEDED": "--error-budget N bears more",
    "LOSSES_MOVED": "--max-losses N of `dataops restore confirm` confirms more",
}
_ONE_COLUMN = re.compile(r"the column '[^']*?(;|\||\\t)[^']*'")
_GROUPS = {"imports": "imports", "exports": "exports", "backups": "backup", "restores": "restore"}
"""The commands that show a resource."""
_OF_ROWS = frozenset({"ERROR_BUDGET_EXCEEDED", "KEY_UNREADABLE", "TOO_MANY_ERRORS"})
"""Reasons that single rows are behind, which ListImportErrors names."""


def lines_of(error: DataOpsError) -> Iterator[str]:
    """The error itself; of a failed job also everything that is wrong, its ids and the next step."""
    from dataops_client.errors import JobFailed

    if not isinstance(error, JobFailed):
        yield _translated(str(error)) + _hint(error)
        return
    yield _translated(f"{error.reason}: {error.message}") + _hint(error)
    if any(_bare(v.description) not in error.message for v in error.violations):
        for violation in error.violations:
            yield _translated(f"  {violation.subject}: {violation.description}")
    if error.job.job_id:
        yield _where(error)


def _where(error: JobFailed) -> str:
    kind, _, resource_id = error.job.resource.partition("/")
    job_id = error.job.job_id
    of_import = kind == "imports"
    named = f"{kind.removesuffix('s')} {resource_id}, job {job_id}" if resource_id else f"job {job_id}"
    steps = [f"dataops jobs retry {job_id} runs it again"] if error.job.error.retryable else []
    if of_import and error.reason in _OF_ROWS:
        steps.append(f"dataops imports errors {resource_id} lists the rows")
    if of_import and error.reason == "ROW_REFUSED":
        steps.append("with --on-refused skip such rows are found, listed and left out")
    if not steps:
        shown = f"{_GROUPS[kind]} show {resource_id}" if kind in _GROUPS else f"jobs show {job_id}"
        steps.append(f"dataops {shown} shows it")
    return f"{named}: {', '.join(steps)}"


def _bare(description: str) -> str:
    """A violation without the word before it, as it stands in the message."""
    return re.sub(r"^[A-Z_]+: ", "", description)


def _translated(text: str) -> str:
    for phrase, said in _PHRASES.items():
        text = text.replace(phrase, said)
    return _OPTION.sub(lambda found: _OPTIONS[found[0]], text)


def _hint(error: DataOpsError) -> str:
    """What to do about it."""
    if hint := _HINTS.get(error.reason):
        return f"; {hint}"
    if found := _ONE_COLUMN.search(error.message):
        return f"; are its cells separated so? --delimiter {'tab' if found[1] == chr(92) + 't' else repr(found[1])}"
    if "ListEntities" in error.message:
        return "; `dataops entities` lists them"
    if "CERTIFICATE_VERIFY_FAILED" in error.message:
        return "; does --ca-file or DATAOPS_CA_FILE name the authority of this server's certificate?"
    if "security handshaker" in error.message:
        return "; does --ca-file or DATAOPS_CA_FILE hold certificates (PEM)?"
    return ""
