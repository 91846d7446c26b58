"""What our role may in the database as a whole: the schemas, temporary tables, the work schema."""

from __future__ import annotations

from collections.abc import Iterator

from engine.admin.doctor.finding import OPERATIONS, WRITES, Finding, Severity
from engine.admin.doctor.look import Look
from engine.jobs.fence import prepare_sql, usable

_SCHEMAS = """
SELECT s.name, n.oid IS NOT NULL AS there, coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS usable,
       (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')) AS tables
FROM unnest(%(schemas)s::text[]) s (name) LEFT JOIN pg_namespace n ON n.nspname = s.name
"""


def check_schemas(look: Look) -> Iterator[Finding]:
    """Of a schema that may not be used the catalog has no table at all, not even one that is not covered."""
    if not look.schemas:
        means = "no table is an entity"
        yield Finding("schema", Severity.ERROR, "DATAOPS_PLATFORM_SCHEMAS", "no schema", means, refused=OPERATIONS)
    for row in look.rows(_SCHEMAS):
        name = look.quoted(row["name"])
        if not row["there"]:
            found, means = "no such schema", "none of DATAOPS_PLATFORM_SCHEMAS' tables in it is an entity"
            yield Finding("schema", Severity.ERROR, name, found, means)
        elif not row["usable"]:
            means = "none of its tables is an entity, and none is listed as not covered"
            sql = f"GRANT USAGE ON SCHEMA {name} TO {look.role};"
            yield Finding("schema", Severity.ERROR, name, "no right to use it", means, sql)
        elif not row["tables"]:
            yield Finding("schema", Severity.WARNING, name, "no table in it", "it gives no entity")
        else:
            yield Finding("schema", Severity.OK, name, f"{row['tables']:,} tables, parts counted", "they are entities")


def check_temporary(look: Look) -> Iterator[Finding]:
    row = look.row("SELECT has_database_privilege(current_database(), 'TEMPORARY') AS may")
    if row["may"]:
        yield Finding("temporary_tables", Severity.OK, look.role, "may make them", "imports can be planned")
        return
    means = "exports work; an import is validated and planned in them, so each is refused (PLATFORM_NOT_PREPARED)"
    sql = f"GRANT TEMPORARY ON DATABASE {look.database} TO {look.role};"
    yield Finding("temporary_tables", Severity.ERROR, look.role, "no right to make them", means, sql, WRITES)


def check_work_schema(look: Look) -> Iterator[Finding]:
    """The one thing that is ever made in the platform database, by `prepare` or by the first import."""
    if usable(look.connection):
        yield Finding("work_schema", Severity.OK, "dataops_work", "there and usable", "imports can be applied")
        return
    row = look.row(
        "SELECT has_database_privilege(current_database(), 'CREATE') AS may,"
        " EXISTS (SELECT FROM pg_namespace WHERE nspname = 'dataops_work') AS there"
    )
    sql = prepare_sql(look.row("SELECT current_user::text AS name")["name"])
    if row["may"] and not row["there"]:
        means = "the first import makes it and says so; `dataops-admin prepare` makes it now"
        yield Finding("work_schema", Severity.NOTICE, "dataops_work", "none yet, and the right to make it", means, sql)
        return
    found = "it is there, and not for our role to use" if row["there"] else "none, and no right to make it"
    means = "exports and plans work; applying an import is refused (PLATFORM_NOT_PREPARED)"
    yield Finding("work_schema", Severity.ERROR, "dataops_work", found, means, sql, WRITES)


CHECKS = (check_schemas, check_temporary, check_work_schema)
