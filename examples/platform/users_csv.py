"""A CSV file of users with a chosen number of good and bad rows, for demos, tests and measurements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from examples.platform.rows import USER_COLUMNS, User, user

CSV_COLUMNS = tuple(column for column in USER_COLUMNS if column != "password_hash")
_PASSWORD = USER_COLUMNS.index("password_hash")
_FLUSH_ROWS = 5_000

# what is wrong with a bad row, in turn: the field and the text that stands in it (None: nothing at all)
_FAULTS: tuple[tuple[str, str | None], ...] = (
    ("role", "PILOT"),
    ("rating", "excellent"),
    ("created_at", "2024-02-31 25:00:00+00"),
    ("email", None),
    ("id", "not-a-uuid"),
    ("country", "USA"),
    ("preferences", "{broken"),
    ("rating", "9.75"),
)


class BadRow(NamedTuple):
    """Where a fault was put: the data row's number counted from 1, its field and its text."""

    row: int
    field: str
    value: str | None


class UsersFile(NamedTuple):
    """What ``write_users_csv`` wrote."""

    path: Path
    rows: int
    bad_rows: list[BadRow]


def write_users_csv(path: Path, *, good: int, bad: int = 0, seed: int = 1, first: int = 0) -> UsersFile:
    """Write users number ``first`` … as CSV without the secret column; NULL is bare, '' would be quoted.

    Bad rows are spread evenly over the file and take users' places, so that ``first + good + bad`` is the
    next unused number. 200,000 rows take about 2 s.
    """
    total = good + bad
    bad_rows = [_bad_row(number, total, bad) for number in range(bad)]
    faults = {row.row: row for row in bad_rows}
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(CSV_COLUMNS) + "\n")
        block: list[str] = []
        for number in range(1, total + 1):
            line = csv_line(user(seed, first + number - 1), faults.get(number))
            block.append(line)
            if len(block) == _FLUSH_ROWS:
                file.write("".join(block))
                block.clear()
        file.write("".join(block))
    return UsersFile(path, total, bad_rows)


def good_lines(written: UsersFile, *, seed: int = 1, first: int = 0) -> Iterator[str]:
    """The file's good rows again, as it holds them, for comparing with an export."""
    bad = {row.row for row in written.bad_rows}
    return (csv_line(user(seed, first + n - 1)) for n in range(1, written.rows + 1) if n not in bad)


def csv_line(person: User, fault: BadRow | None = None) -> str:
    """One row as PostgreSQL's COPY … CSV writes it, with the fault put in."""
    values: list[str | None] = [*person[:_PASSWORD], *person[_PASSWORD + 1 :]]
    if fault is not None:
        values[CSV_COLUMNS.index(fault.field)] = fault.value
    return ",".join(["" if v is None else _quoted(v) if '"' in v or "," in v else v for v in values]) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _bad_row(number: int, total: int, bad: int) -> BadRow:
    field, value = _FAULTS[number % len(_FAULTS)]
    return BadRow((2 * number + 1) * total // (2 * bad) + 1, field, value)
