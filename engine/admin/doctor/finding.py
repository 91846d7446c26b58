"""One thing that a check has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

EXPORT = "export"
BACKUP = "backup"
RESTORE = "restore"
IMPORTS = ("ADDITIVE", "UPSERT", "REPLACE")
READS = (EXPORT, BACKUP)
WRITES = (*IMPORTS, RESTORE)
OPERATIONS = (EXPORT, *IMPORTS, BACKUP, RESTORE)
"""What can be done with a table; the imports by their mode."""


class Severity(StrEnum):
    """How much it matters; in falling order."""

    ERROR = "ERROR"
    """The service cannot do its work, or a whole kind of it, before this is mended. Exit code 1."""
    WARNING = "WARNING"
    """Something is refused, or will fail one day, that can be mended."""
    NOTICE = "NOTICE"
    """To know; nothing has to be done."""
    OK = "OK"


@dataclass(frozen=True)
class Finding:
    """What `check` found of `subject`, what it means, and the SQL that its owner may run to mend it."""

    check: str
    severity: Severity
    subject: str
    """A table as SQL names it, or another thing: a role, a schema, a setting."""
    found: str
    means: str
    sql: str = ""
    refused: tuple[str, ...] = ()
    """Of OPERATIONS, those that do not work with the subject because of it."""
    tables: tuple[str, ...] = ()
    """The tables that it is about, where the subject is something else; empty for all of them or none."""


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few of many names, and how many there are beyond."""
    found = list(names)
    rest = f" and {len(found) - most:,} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest
