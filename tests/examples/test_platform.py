"""The sample platform: same seed, same rows; what it writes is what PostgreSQL prints."""

from pathlib import Path

import psycopg

from examples.platform import generate
from examples.platform.users_csv import CSV_COLUMNS, good_lines, write_users_csv


def _export(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        connection.execute("SET timezone = 'UTC'")
        with cursor.copy(f"COPY (SELECT {', '.join(CSV_COLUMNS)} FROM public.users) TO STDOUT (FORMAT csv)") as out:
            return set(b"".join(out).decode().splitlines(keepends=True))


def test_the_generated_platform_fills_every_table_and_its_text_is_what_an_export_prints(
    platform_dsn: str, tmp_path: Path
) -> None:
    counts = generate.load(platform_dsn, users=2_000, seed=7)
    assert all(counts.values())
    written = write_users_csv(tmp_path / "users.csv", good=2_000, seed=7)
    assert _export(platform_dsn) == set(written.path.read_text().splitlines(keepends=True)[1:])
    with psycopg.connect(platform_dsn) as connection:
        tables = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'dataschema')"
        ).fetchall()
    assert {name for (name,) in tables} == set(counts)


def test_a_row_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    small = write_users_csv(tmp_path / "small.csv", good=10, seed=3, first=5)
    large = write_users_csv(tmp_path / "large.csv", good=100, seed=3)
    other = write_users_csv(tmp_path / "other.csv", good=10, seed=4, first=5)
    assert list(good_lines(small, seed=3, first=5)) == list(good_lines(large, seed=3))[5:15]
    assert small.path.read_bytes() != other.path.read_bytes()


def test_bad_rows_stand_where_the_summary_says(tmp_path: Path) -> None:
    written = write_users_csv(tmp_path / "users.csv", good=90, bad=16)
    lines = written.path.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + written.rows == 1 + 90 + 16
    assert len({row.row for row in written.bad_rows}) == 16
    good = set(good_lines(written))
    assert [n for n, line in enumerate(lines[1:], 1) if line not in good] == [row.row for row in written.bad_rows]


def test_an_inactive_schema_version_cannot_be_pinned(platform_dsn: str) -> None:
    generate.load(platform_dsn, users=10)
    with psycopg.connect(platform_dsn, autocommit=True) as connection:
        found = connection.execute(
            "SELECT status, table_id, version_id FROM dataschema.schema_version WHERE status <> 'DRAFT'"
        ).fetchall()
        for status, table, version in found:
            try:
                connection.execute("SELECT dataschema.pin_active(%s, %s)", (table, version))
                pinned = True
            except psycopg.errors.ObjectNotInPrerequisiteState:
                pinned = False
            assert pinned == (status == "ACTIVE")
