"""REPLACE: which rows of the table go. None whose key stands in the file, even in a row that is refused."""

from __future__ import annotations

from psycopg import sql

from engine.db.platform import one_number
from engine.errors import DataInvalid, Violation
from engine.imports.fingerprints import fingerprint
from engine.imports.sqltext import ROW, all_of, equal, joined, listed
from engine.imports.staging import Staging, staged_name

MOST_DELETES = 1_000
MOST_SHARE = 0.1
"""Deletes beyond either, whichever is less, need their number repeated in ApplyImport."""

SHOWN_RECORDS = 20


def find_gone(staging: Staging, seed: int, records: int) -> int:
    """Fills `kept` with every key of the file and `gone` with the rows of the table that have none of them.

    Args:
        records: of the file, blank ones not among them.

    Raises:
        DataInvalid: KEY_UNREADABLE, when the key of any record cannot be known: its row might be deleted for it.
    """
    _keys_of_staged(staging)
    _keys_of_refused(staging)
    found = _readable(staging)
    if found != records:
        raise DataInvalid(
            f"{staging.entity.name}: found {records - found} records whose key cannot be read, expected none: REPLACE"
            " would delete their rows",
            reason="KEY_UNREADABLE",
            violations=_unreadable(staging),
        )
    columns = [f.column for f in staging.entity.stored]
    staging.run(sql.SQL("ANALYZE {}").format(staging.kept))
    gone = staging.run(
        sql.SQL("INSERT INTO {} SELECT {}, {} FROM {} t WHERE NOT EXISTS (SELECT FROM {} k WHERE {})").format(
            staging.gone,
            fingerprint("t", columns, seed),
            listed("t", columns),
            staging.entity.relation,
            staging.kept,
            equal(staging.key_fields, s="k"),
        )
    )
    staging.run(sql.SQL("ANALYZE {}").format(staging.gone))
    return gone


def needs_confirmation(deletes: int, rows_before: int, records: int, most: int | None) -> bool:
    """Whether ApplyImport must repeat the number of deletes; for a file without records always."""
    limit = min(int(rows_before * MOST_SHARE), MOST_DELETES) if most is None else most
    return deletes > 0 and (deletes > limit or records == 0)


def _keys_of_staged(staging: Staging) -> None:
    staging.run(
        sql.SQL("INSERT INTO {} SELECT {} FROM {} s WHERE {}").format(
            staging.kept, listed("s", staging.key), staging.staged, _present(staging)
        )
    )


def _keys_of_refused(staging: Staging) -> None:
    """Rows that never became certain may have a good key all the same."""
    if not _in_doubtful(staging):
        return
    mapped = {m.field.column: m for m in staging.columns.mapped}
    casts = [staging.typed(mapped[c]) for c in staging.key]
    staging.run(
        sql.SQL("INSERT INTO {} SELECT {} FROM {} d WHERE {}").format(
            staging.kept, joined(casts), staging.doubtful, _refused_with_key(staging)
        )
    )


def _readable(staging: Staging) -> int:
    refused = sql.SQL("(SELECT count(*) FROM {} d WHERE {})").format(staging.doubtful, _refused_with_key(staging))
    return one_number(
        staging.connection,
        sql.SQL("SELECT (SELECT count(*) FROM {} s WHERE {}) + {}").format(
            staging.staged, _present(staging), refused if _in_doubtful(staging) else sql.SQL("0")
        ),
    )


def _unreadable(staging: Staging) -> list[Violation]:
    """The first records whose key cannot be known, by number: there is no plan whose errors would name them."""
    refused: sql.Composable = sql.SQL("")
    if _in_doubtful(staging):
        refused = sql.SQL("AND NOT EXISTS (SELECT FROM {} d WHERE d.{} = v.row AND {})").format(
            staging.doubtful, ROW, _refused_with_key(staging)
        )
    rows = staging.connection.execute(
        sql.SQL(
            "SELECT DISTINCT ON (v.row) v.row, v.field, v.code FROM {} v WHERE NOT EXISTS "
            "(SELECT FROM {} s WHERE s.{} = v.row AND {}) {} ORDER BY v.row, v.field <> ALL({}), v.code LIMIT {}"
        ).format(
            staging.verdicts, staging.staged, ROW, _present(staging), refused,
            sql.Literal([f.name for f in staging.key_fields]), sql.Literal(SHOWN_RECORDS),
        )
    ).fetchall()  # fmt: skip
    return [Violation(field, f"record {row}: {code}") for row, field, code in rows]


def _present(staging: Staging) -> sql.Composed:
    # of a composite IS NOT NULL asks for each part
    return all_of(*(sql.SQL("s.{} IS DISTINCT FROM NULL").format(sql.Identifier(c)) for c in staging.key))


def _in_doubtful(staging: Staging) -> bool:
    """Whether a doubtful row's text says its key: no part of it is looked up or a constant."""
    return len(_key_cells(staging)) == len(staging.key)


def _key_cells(staging: Staging) -> list[tuple[sql.Identifier, str]]:
    mapped = {m.field.column: m for m in staging.columns.mapped if m.lookup is None}
    return [(staged_name(mapped[c]), mapped[c].field.storage_type) for c in staging.key if c in mapped]


def _refused_with_key(staging: Staging) -> sql.Composed:
    valid = [
        sql.SQL("d.{0} IS NOT NULL AND pg_input_is_valid(d.{0}, {1})").format(name, sql.Literal(kind))
        for name, kind in _key_cells(staging)
    ]
    not_staged = sql.SQL("NOT EXISTS (SELECT FROM {} s WHERE s.{} = d.{})").format(staging.staged, ROW, ROW)
    return all_of(not_staged, *valid)
