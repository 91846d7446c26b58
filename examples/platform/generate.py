"""Fill a sample platform, or write a users file: ``python -m examples.platform.generate --help``."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from examples.platform import datatables, rows
from examples.platform.rows import Table, Value
from examples.platform.users_csv import write_users_csv

SCHEMA = Path(__file__).with_name("schema.sql")
CATALOG = Path(__file__).with_name("catalog.toml")
_BLOCK_ROWS = 2_000
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def create_schema(dsn: str) -> None:
    """Make the platform's schemas, types and empty tables in a database that has none of them."""
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA.read_bytes())


def load(dsn: str, *, users: int, seed: int = 1, only: Container[str] | None = None) -> dict[str, int]:
    """Fill the empty tables (or ``only`` those) in one transaction by COPY; returns rows by table.

    Same seed and number, same rows. A million users make some 5 million rows.
    """
    counts: dict[str, int] = {}
    data_tables = datatables.tables(seed, max(10, users // 20))
    with psycopg.connect(dsn) as connection:
        for table in itertools.chain(rows.tables(seed, users), data_tables):
            if only is None or table.name in only:
                counts[table.name] = _copy_in(connection, table)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return counts


def _copy_in(connection: psycopg.Connection[tuple[object, ...]], table: Table) -> int:
    schema, name = table.name.split(".")
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(schema, name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    )
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for block in _blocks(map(_copy_line, table.rows)):
                copy.write(block)
        return cursor.rowcount


def _copy_line(row: Iterable[Value]) -> str:
    return "\t".join(["\\N" if value is None else value.translate(_ESCAPES) for value in row]) + "\n"


def _blocks(lines: Iterator[str]) -> Iterator[str]:
    while block := "".join(itertools.islice(lines, _BLOCK_ROWS)):
        yield block


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fill a sample platform, or write a CSV file of users.")
    parser.add_argument("--dsn", help="database to create the platform in")
    parser.add_argument("--users", type=int, default=10_000, help="how many users (default: 10000)")
    parser.add_argument("--csv", type=Path, help="write a users file here instead")
    parser.add_argument("--good", type=int, default=1_000, help="good rows of that file (default: 1000)")
    parser.add_argument("--bad", type=int, default=0, help="bad rows of that file (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of its first user (default: 0)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.csv:
        written = write_users_csv(args.csv, good=args.good, bad=args.bad, seed=args.seed, first=args.first)
        print(f"{written.path}: {written.rows} rows, {len(written.bad_rows)} of them bad")
    elif args.dsn:
        create_schema(args.dsn)
        for table, count in load(args.dsn, users=args.users, seed=args.seed).items():
            print(f"{count:>10,}  {table}")
    else:
        parser.error("say --dsn or --csv")


if __name__ == "__main__":
    main()
