"""What the tables are: which shapes bear which operation, and what would change that."""

from __future__ import annotations

from collections.abc import Iterator

from engine.admin.doctor.finding import EXPORT, IMPORTS, OPERATIONS, WRITES, Finding, Severity, some
from engine.admin.doctor.keys import missing_key_sql
from engine.admin.doctor.look import Look
from engine.admin.doctor.report import Report
from engine.catalog import Entity
from engine.exports.request import not_exportable
from engine.imports.mapping import REJECT_COLUMNS
from engine.imports.targets import MOST_TOUCHED, not_importable

_OTHERS = """
SELECT c.relkind AS kind, format('%%I.%%I', n.nspname, c.relname) AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('f', 'v', 'm') AND NOT c.relispartition
  AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1, 2
"""

_RULES = """
SELECT format('%%I.%%I', n.nspname, c.relname) AS table, quote_ident(r.rulename) AS name
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1, 2
"""

_CHILDREN = """
SELECT format('%%I.%%I', n.nspname, c.relname) AS table,
       array_agg(format('%%I.%%I', m.nspname, d.relname) ORDER BY d.relname) AS children
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class d ON d.oid = i.inhrelid JOIN pg_namespace m ON m.oid = d.relnamespace
WHERE n.nspname = ANY (%(schemas)s) GROUP BY 1 ORDER BY 1
"""

_FOREIGN_PARTS = """
SELECT format('%%I.%%I', n.nspname, c.relname) AS table, format('%%I.%%I', m.nspname, d.relname) AS part
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN pg_partition_tree(c.oid) p
JOIN pg_class d ON d.oid = p.relid AND d.relkind = 'f' JOIN pg_namespace m ON m.oid = d.relnamespace
WHERE n.nspname = ANY (%(schemas)s) AND c.relkind = 'p' AND NOT c.relispartition ORDER BY 1, 2
"""

_KINDS = {"f": "foreign tables", "v": "views", "m": "materialized views"}
_NAMED = 20
"""Names of one list; all of them stand in the finding's `tables`."""


def check_not_covered(look: Look) -> Iterator[Finding]:
    means = "none of them is an entity: full exports and backups leave them out, and say so by name"
    for kind, called in _KINDS.items():
        names = tuple(row["name"] for row in look.rows(_OTHERS) if row["kind"] == kind)
        if names:
            found = f"{len(names):,}: {some(names, _NAMED)}"
            yield Finding("not_covered", Severity.NOTICE, called, found, means, refused=OPERATIONS, tables=names)
    excluded = [o.name for o in look.catalog.not_covered if "catalog.toml" in o.why] if look.catalog else []
    if excluded:
        names = tuple(look.quoted(*name.split(".", 1)) for name in excluded)
        found = f"it excludes {some(names, _NAMED)}"
        yield Finding("not_covered", Severity.NOTICE, "catalog.toml", found, means, refused=OPERATIONS, tables=names)


def check_row_security(look: Look) -> Iterator[Finding]:
    """Only the role's own exemption mends it: policies are the platform's, and FORCE may be meant for other users."""
    for entity in look.entities:
        if entity.refused:
            means = "nothing is done with a part of a table, so everything is refused; a role that BYPASSRLS sees all"
            means += " (give the service a role of its own first, if applications log in by this one)"
            sql = f"ALTER ROLE {look.role} BYPASSRLS;"
            yield Finding("row_security", Severity.WARNING, look.table(entity), entity.refused, means, sql, OPERATIONS)


def check_keys(look: Look) -> Iterator[Finding]:
    for entity in look.entities:
        if not entity.key:
            found, sql = missing_key_sql(look, entity)
            means = (
                "ADDITIVE and exports work; UPSERT and REPLACE cannot tell its rows and are refused (KEY_NOT_USABLE)"
            )
            yield Finding("key", Severity.NOTICE, look.table(entity), found, means, sql, IMPORTS[1:])


def check_rules(look: Look) -> Iterator[Finding]:
    for row in look.rows(_RULES):
        means = "exports work; a rule changes what is written, so every import and restore is refused"
        means += " (ENTITY_NOT_IMPORTABLE); a trigger that does the same is no hindrance"
        sql = f"DROP RULE {row['name']} ON {row['table']};"
        yield Finding("rules", Severity.WARNING, row["table"], f"rule {row['name']}", means, sql, WRITES)


def check_columns(look: Look) -> Iterator[Finding]:
    for entity in look.entities:
        why = "" if entity.refused or entity.has_rules else not_importable(entity)
        if why:
            means = "exports work; every import and restore is refused (ENTITY_NOT_IMPORTABLE)"
            yield Finding("columns", Severity.WARNING, look.table(entity), why, means, refused=WRITES)
        elif len(entity.stored) > MOST_TOUCHED:
            means = f"an UPSERT or REPLACE that fills more than {MOST_TOUCHED} of them is refused"
            found = f"{len(entity.stored):,} columns"
            yield Finding("columns", Severity.NOTICE, look.table(entity), found, means)
        if named := [f.name for f in entity.fields if f.name in REJECT_COLUMNS]:
            means = (
                "a file's column of that name is a reject file's own: rename it and map it; bundles do not come back"
            )
            yield Finding("columns", Severity.NOTICE, look.table(entity), f"a column named {some(named)}", means)
        if not entity.refused and (hidden := not_exportable(entity)):
            means = "an export is refused; imports work"
            yield Finding("columns", Severity.NOTICE, look.table(entity), hidden, means, refused=(EXPORT,))


def check_secrets(look: Look) -> Iterator[Finding]:
    """A new row gets its fill, unless whoever imports may set secrets."""
    for entity in look.entities:
        bare = [
            f.name
            for f in entity.fields
            if f.secret and not f.nullable and f.default is None and f.fill is None and f.fill_sql is None
        ]
        if bare:
            names = ", ".join(bare)
            means = "new rows are refused (SECRET_REQUIRED) but to who may set secrets; give the fill in catalog.toml:"
            means += f" [entities.{entity.name}.secrets] with {bare[0]} = {{ fill = … }}"
            found = f"{names}: secret, required and without a fill"
            yield Finding("secrets", Severity.NOTICE, look.table(entity), found, means)


def check_inheritance(look: Look) -> Iterator[Finding]:
    for row in look.rows(_CHILDREN):
        means = "it stands for its own rows alone (ONLY); its children are entities of their own"
        found = f"it is inherited by {some(row['children'])}"
        yield Finding("inheritance", Severity.NOTICE, row["table"], found, means)
    for row in look.rows(_FOREIGN_PARTS):
        found = f"its part {row['part']} is a foreign table"
        means = (
            "what another server holds is in no snapshot and no transaction of ours: rows may differ from one moment"
        )
        means += " to the next, and an import into it may stand though it was rolled back here"
        yield Finding("partition", Severity.WARNING, row["table"], found, means)


def check_tables(look: Look, report: Report) -> Iterator[Finding]:
    """Last: for each entity with which anything works, what does."""
    for entity in look.entities:
        table = look.table(entity)
        refused = report.refused(table)
        if works := report.works(table):
            means = f"{', '.join(works)} {'works' if len(works) == 1 else 'work'}"
            if refused:
                means += "; refused: " + ", ".join(f"{name} ({', '.join(why)})" for name, why in refused.items())
            yield Finding("table", Severity.OK, table, _facts(entity), means)


def _facts(entity: Entity) -> str:
    """What is special of a table and needs no mending."""
    firing = sum(t.fires for t in entity.triggers)
    references = {(r.target_schema, r.target_table) for r in entity.references}
    facts = [
        f"key {', '.join(entity.key)}" if entity.key else "no key",
        "partitioned, one entity with all its parts" if entity.partitioned else "",
        f"{firing} triggers, which fire: what they store is read again" if firing else "",
        "refers to itself" if (entity.schema, entity.table) in references else "",
        "generated columns, which the server fills" if any(f.generated for f in entity.fields) else "",
        "always an identity: given where it is mapped" if any(f.identity == "ALWAYS" for f in entity.fields) else "",
        f"judged by the table alone at apply: {some(entity.expression_keys)}" if entity.expression_keys else "",
    ]
    return "; ".join(filter(None, facts))


CHECKS = (
    check_not_covered, check_row_security, check_keys, check_rules, check_columns, check_secrets, check_inheritance,
)  # fmt: skip
