"""`dataops-admin prepare`: makes what the service needs in the platform database, once, and nothing else.

That is the schema `dataops_work` with its table, and the rights of the service's role to it; temporary tables too where
somebody has revoked them. It may be run again: what is there is left as it is.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.exc import ArgumentError

from engine.config import Settings
from engine.db.database import libpq_dsn
from engine.db.platform import Connection, Platform
from engine.errors import InvalidRequest, NotFound, PlatformNotPrepared
from engine.jobs.fence import PREPARE_LOCK, TABLE_RIGHTS, WORK_SCHEMA_SQL, prepare_sql

_THERE = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'dataops_work'),
       EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'dataops_work' AND c.relname = 'applied')
"""

_MISSING = """
SELECT has_schema_privilege(%(role)s, n.oid, 'USAGE'),
       ARRAY(SELECT w FROM unnest(%(rights)s::text[]) w WHERE NOT has_table_privilege(%(role)s, c.oid, w)),
       has_database_privilege(%(role)s, current_database(), 'TEMPORARY')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'dataops_work' AND c.relname = 'applied'
"""


def service_role(settings: Settings) -> str:
    """Whom the service is in the platform database. It is asked only where the DSN leaves that to its defaults.

    Raises:
        Unavailable: PLATFORM_UNREACHABLE; FailedPrecondition: PLATFORM_TOO_OLD, POOLER_REFUSED.
    """
    named = conninfo_to_dict(libpq_dsn(settings.platform_dsn)).get("user")
    if named:
        return str(named)
    with Platform(settings.platform_dsn).connect("prepare", autocommit=True) as connection:
        return connection.info.user


def prepare(dsn: str, role: str) -> list[str]:
    """Make what is missing for `role`, all or nothing, as the login of `dsn`; says what was made, nothing where all is.

    Raises:
        PlatformNotPrepared: PLATFORM_NOT_PREPARED, where that login may not; `sql` of the metadata is for who may.
        NotFound: PLATFORM_ROLE_UNKNOWN.
        InvalidRequest: CONFIG_INVALID for a DSN that is none.
        Unavailable: PLATFORM_UNREACHABLE; FailedPrecondition: PLATFORM_TOO_OLD, POOLER_REFUSED.
    """
    with _platform(dsn).connect("prepare", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
            raise NotFound(f"role: found no {role!r} in the platform's server", reason="PLATFORM_ROLE_UNKNOWN")
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (PREPARE_LOCK,))
                made = [*_make(connection), *_grant(connection, role)]
                _require_granted(connection, role)
        except psycopg.errors.InsufficientPrivilege:
            raise _refused(connection, role) from None
        except psycopg.errors.ReadOnlySqlTransaction:
            raise PlatformNotPrepared(
                "platform database: found a standby, or a login whose transactions are read-only; expected the primary",
                reason="PLATFORM_NOT_PREPARED",
                metadata={"sql": sql_for_owner(role)},
            ) from None
    return made


def _platform(dsn: str) -> Platform:
    try:
        return Platform(dsn)
    except ArgumentError:
        raise InvalidRequest("dsn: expected postgresql://user@host:port/database", reason="CONFIG_INVALID") from None


def sql_for_owner(role: str) -> str:
    """All that may be needed, for whoever owns the database that it is run in; it may be run again."""
    grant = sql.SQL("BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), {}); END")
    body = sql.Literal(grant.format(sql.Literal(role)).as_string())
    return prepare_sql(role) + sql.SQL("DO {};\n").format(body).as_string()


def _make(connection: Connection) -> list[str]:
    row = connection.execute(_THERE).fetchone()
    schema, table = row or (False, False)
    if schema and table:
        return []
    connection.execute(WORK_SCHEMA_SQL.encode())
    return [*([] if schema else ["made schema dataops_work"]), *([] if table else ["made table dataops_work.applied"])]


def _grant(connection: Connection, role: str) -> list[str]:
    missing = _grants(connection, role)
    for words in missing:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(words), sql.Identifier(role)))
    return [f"granted {words} to {role}" for words in missing]


def _grants(connection: Connection, role: str) -> list[str]:
    """What the role lacks, as GRANT takes it. Of a schema that our login may not use nothing can be told by name."""
    row = connection.execute(_MISSING, {"role": role, "rights": list(TABLE_RIGHTS)}).fetchone()
    if row is None:
        return []
    usage, rights, temporary = row
    database = sql.Identifier(connection.info.dbname).as_string(connection)
    return [
        *([] if usage else ["USAGE ON SCHEMA dataops_work"]),
        *([f"{', '.join(rights)} ON dataops_work.applied"] if rights else []),
        *([] if temporary else [f"TEMPORARY ON DATABASE {database}"]),
    ]


def _require_granted(connection: Connection, role: str) -> None:
    """A GRANT by who has no right to give it may only warn."""
    if _grants(connection, role):
        raise psycopg.errors.InsufficientPrivilege


def _refused(connection: Connection, role: str) -> PlatformNotPrepared:
    """Outside of the transaction, which the refusal has ended."""
    said = f"platform database: found no right of {connection.info.user} to prepare it for {role}"
    return PlatformNotPrepared(
        f"{said}; let its owner run this", reason="PLATFORM_NOT_PREPARED", metadata={"sql": sql_for_owner(role)}
    )
