"""The platform database's server and settings: what it lets any session do, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from engine.admin.doctor.finding import WRITES, Finding, Severity
from engine.admin.doctor.look import Look, Row

_LIMITS = ("statement_timeout", "transaction_timeout", "idle_session_timeout", "lock_timeout",
           "idle_in_transaction_session_timeout")  # fmt: skip
"""Settings that end a long statement, transaction or session."""

_MUST_BE_OFF = ("statement_timeout", "transaction_timeout", "idle_session_timeout")
"""Of them those that would end an import or export which only takes its time; we set the other two ourselves."""

_SET_FOR_US = """
SELECT lower(split_part(c, '=', 1)) AS name, split_part(c, '=', 2) AS value,
       CASE WHEN s.setdatabase = 0 THEN format('ALTER ROLE %%s', coalesce(quote_ident(r.rolname), 'ALL'))
            WHEN s.setrole = 0 THEN format('ALTER DATABASE %%I', d.datname)
            ELSE format('ALTER ROLE %%I IN DATABASE %%I', r.rolname, d.datname) END AS alter
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
  AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
"""What ALTER ROLE and ALTER DATABASE set for our sessions, and the beginning of the statement that takes it back."""


def check_standby(look: Look) -> Iterator[Finding]:
    if look.row("SELECT pg_is_in_recovery() AS standby")["standby"]:
        means = "nothing can be written: exports work, every import and restore is refused; name the primary instead"
        yield Finding("standby", Severity.ERROR, look.database, "a standby in recovery", means, refused=WRITES)
    else:
        yield Finding("standby", Severity.OK, look.database, "a primary", "it can be written")


def check_read_only(look: Look) -> Iterator[Finding]:
    (row,) = _settings(look, ("default_transaction_read_only",))
    if row["setting"] == "off":
        yield Finding("read_only", Severity.OK, look.role, "transactions may write", "imports can be applied")
        return
    found = "default_transaction_read_only is on for our sessions"
    means = "exports work; an import fails at its first temporary table, so every import and restore is refused"
    if row["source"] == "client":
        means += "; it stands in the options of DATAOPS_PLATFORM_DSN"
    sql = f"ALTER ROLE {look.role} IN DATABASE {look.database} SET default_transaction_read_only = off;"
    yield Finding("read_only", Severity.ERROR, look.role, found, means, sql, WRITES)


def check_timeouts(look: Look) -> Iterator[Finding]:
    """What a session of ours has in the end counts; what is set for the role is told, since people look for it."""
    effective = {row["name"]: row["setting"] for row in _settings(look, _LIMITS)}
    for name in _MUST_BE_OFF:
        if effective.get(name, "0") != "0":
            means = "it ends a plan, an apply or an export that takes longer"
            sql = f"ALTER ROLE {look.role} IN DATABASE {look.database} SET {name} = 0;"
            yield Finding("timeouts", Severity.ERROR, name, f"{effective[name]} ms in our own sessions", means, sql)
    for row in look.rows(_SET_FOR_US):
        if row["name"] in _LIMITS:
            means = "our sessions set their own value over it, so nothing of ours is ended by it"
            found = f"{row['value']} by {row['alter']}"
            yield Finding(
                "timeouts", Severity.NOTICE, row["name"], found, means, f"{row['alter']} RESET {row['name']};"
            )
    (limit,) = _settings(look, ("temp_file_limit",))
    if limit["setting"] != "-1":
        means = "an export with an order, or the plan of a large import, needs more room to sort and fails (53400)"
        sql = f"ALTER ROLE {look.role} SET temp_file_limit = -1;"
        yield Finding("temp_file_limit", Severity.NOTICE, look.role, f"{limit['setting']} kB a session", means, sql)


def check_encoding(look: Look) -> Iterator[Finding]:
    encoding = look.row("SELECT current_setting('server_encoding') AS name")["name"]
    severity, means = Severity.OK, "every text can be stored and read"
    if encoding == "SQL_ASCII":
        severity = Severity.WARNING
        means = (
            "nobody knows which characters its bytes are: an export that meets bytes which are no UTF-8 is refused"
            " (TEXT_NOT_UTF8); a new database with a real encoding, filled by dump and restore, mends it"
        )
    elif encoding != "UTF8":
        severity, means = Severity.NOTICE, "characters it lacks are refused, row by row, when they are imported"
    yield Finding("encoding", severity, look.database, encoding, means)


def check_role(look: Look) -> Iterator[Finding]:
    if look.row("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")["rolsuper"]:
        means = (
            "it may do far more than it needs; a role of its own that `dataops-admin prepare --role` has prepared does"
        )
        yield Finding("role", Severity.NOTICE, look.role, "a superuser", means)
    else:
        yield Finding("role", Severity.OK, look.role, "an ordinary role", "no more rights than it was given")


def check_event_triggers(look: Look) -> Iterator[Finding]:
    """Temp tables are DDL: a plan makes them, so a trigger that refuses DDL refuses every import."""
    for row in look.rows(
        "SELECT quote_ident(evtname) AS name, evtevent AS event FROM pg_event_trigger"
        " WHERE evtevent IN ('ddl_command_start', 'ddl_command_end') AND evtenabled IN ('O', 'A')"
        " AND (evttags IS NULL OR 'CREATE TABLE' = ANY (evttags)) ORDER BY evtname"
    ):
        found = f"an event trigger at {row['event']}"
        means = "each import makes temporary tables: if it refuses those, planning is refused (PLATFORM_NOT_PREPARED)"
        yield Finding("event_trigger", Severity.NOTICE, row["name"], found, means)


def check_xml(look: Look) -> Iterator[Finding]:
    """A server built without libxml keeps columns of the type and refuses every value."""
    tables = tuple(look.table(e) for e in look.entities if any("xml" in (f.base, f.element) for f in e.fields))
    if not tables:
        return
    try:
        look.connection.execute("SELECT '<a/>'::xml")
    except psycopg.errors.FeatureNotSupported:
        means = "no value of the type can be read or written: rows that have one are refused (INVALID_VALUE)"
        found = "the server was built without libxml"
        yield Finding("type", Severity.WARNING, "xml", found, means, tables=tables)


def _settings(look: Look, names: tuple[str, ...]) -> list[Row]:
    query = "SELECT name, setting, source FROM pg_settings WHERE name = ANY (%(names)s) ORDER BY name"
    return look.rows(query, names=list(names))


CHECKS = (
    check_standby, check_read_only, check_timeouts, check_encoding, check_role, check_event_triggers, check_xml,
)  # fmt: skip
