"""What our role may do with each table, and with what hangs on it: sequences, types, functions, neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from engine.admin.doctor.finding import IMPORTS, OPERATIONS, RESTORE, WRITES, Finding, Severity, some
from engine.admin.doctor.look import Look, Row

_OURS = """
ours AS MATERIALIZED (
    SELECT c.oid, c.relname, c.relowner, format('%%I.%%I', n.nspname, c.relname) AS "table"
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND has_schema_privilege(n.oid, 'USAGE')
)
"""
"""The tables that are, or would be, entities."""

_TABLES = f"""
WITH {_OURS}
SELECT o.table, ARRAY(SELECT w FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) w
                      WHERE NOT has_table_privilege(o.oid, w)) AS missing
FROM ours o ORDER BY 1
"""

_OWNERS = f"""
WITH {_OURS}, numbered AS (
    SELECT d.refobjid AS relation, d.objid AS sequence FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
    UNION
    SELECT a.adrelid, d.refobjid FROM pg_attrdef a
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_class'::regclass
), sequences AS MATERIALIZED (
    SELECT o.oid, o.table, s.oid AS sequence, s.relowner, format('%%I.%%I', n.nspname, s.relname) AS name,
           EXISTS (SELECT FROM pg_depend d WHERE d.objid = s.oid AND d.classid = 'pg_class'::regclass
                   AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')) AS linked,
           EXISTS (SELECT FROM pg_depend d WHERE d.objid = s.oid AND d.classid = 'pg_class'::regclass
                   AND d.deptype = 'i') AS identity
    FROM ours o JOIN numbered u ON u.relation = o.oid
    JOIN pg_class s ON s.oid = u.sequence AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
)
"""
"""A sequence that is linked to a column belongs to the table's owner, and goes with the table to another one."""

_NOT_OWNED = f"""
{_OWNERS}
SELECT quote_ident(r.rolname) AS owner, r.rolsuper AS super, x.table, x.sequence, x.name
FROM (
    SELECT o.relowner, o.table, NULL AS sequence, 'TABLE ' || o.table AS name FROM ours o
    UNION ALL SELECT s.relowner, s.table, s.name, CASE WHEN s.linked THEN '' ELSE 'SEQUENCE ' || s.name END
    FROM sequences s
) x JOIN pg_roles r ON r.oid = x.relowner
WHERE NOT pg_has_role(x.relowner, 'USAGE') ORDER BY 1, x.sequence IS NOT NULL, 3, 4
"""

_SEQUENCES = f"""
{_OWNERS}
SELECT s.table, s.name, s.identity OR has_sequence_privilege(s.sequence, 'USAGE, UPDATE') AS usable,
       has_sequence_privilege(s.sequence, 'SELECT') AS readable
FROM sequences s ORDER BY 1, 2
"""

_NEIGHBOURS = f"""
WITH {_OURS}, keys AS (
    SELECT o.table, k.conname, k.confrelid AS other, true AS refers FROM ours o
    JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype = 'f' AND k.confrelid <> o.oid
    UNION ALL
    SELECT o.table, k.conname, k.conrelid, false FROM ours o
    JOIN pg_constraint k ON k.confrelid = o.oid AND k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> o.oid
)
SELECT k.table, quote_ident(k.conname) AS name, k.refers, format('%%I.%%I', n.nspname, c.relname) AS other,
       quote_ident(n.nspname) AS schema, has_schema_privilege(n.oid, 'USAGE') AS usable,
       has_table_privilege(c.oid, 'SELECT') AS readable, row_security_active(c.oid) AS hidden
FROM keys k JOIN pg_class c ON c.oid = k.other JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2, 3
"""

_TYPES = f"""
WITH {_OURS}
SELECT DISTINCT o.table, format_type(e.oid, NULL) AS type, quote_ident(n.nspname) AS schema,
       has_type_privilege(e.oid, 'USAGE') AS usable, has_schema_privilege(n.oid, 'USAGE') AS seen
FROM ours o JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
JOIN pg_namespace n ON n.oid = e.typnamespace
WHERE NOT (has_type_privilege(e.oid, 'USAGE') AND has_schema_privilege(n.oid, 'USAGE')) ORDER BY 1, 2
"""

_FUNCTIONS = f"""
WITH {_OURS}, used AS (
    SELECT a.adrelid AS relation, d.refobjid AS function FROM pg_attrdef a
    JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid AND d.refclassid = 'pg_proc'::regclass
    UNION SELECT k.conrelid, d.refobjid FROM pg_constraint k
    JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
     AND d.refclassid = 'pg_proc'::regclass
    UNION SELECT i.indrelid, d.refobjid FROM pg_index i
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
     AND d.refclassid = 'pg_proc'::regclass
)
SELECT o.table, u.function::regprocedure::text AS function FROM used u JOIN ours o ON o.oid = u.relation
WHERE NOT has_function_privilege(u.function, 'EXECUTE') ORDER BY 1, 2
"""


def check_rights(look: Look) -> Iterator[Finding]:
    for row in look.rows(_TABLES):
        missing = row["missing"]
        if not missing:
            continue
        refused, means = _without(missing)
        sql = f"GRANT {', '.join(missing)} ON {row['table']} TO {look.role};"
        found = f"no {', '.join(missing)}"
        yield Finding("rights", Severity.WARNING, row["table"], found, means, sql, refused)


def _without(missing: list[str]) -> tuple[tuple[str, ...], str]:
    if "SELECT" in missing:
        return OPERATIONS, "it is no entity: nothing can be done with it, and a full export leaves it out by name"
    if "INSERT" in missing:
        return WRITES, "it can be exported and backed up; imports and restores are refused (RIGHTS_MISSING)"
    refused = tuple(w for w in (*IMPORTS[1:], RESTORE) if w != "UPSERT" or "UPDATE" in missing)
    means = f"{', '.join(refused)} are refused"
    if {"UPDATE", "DELETE"} <= set(missing):
        means += "; ADDITIVE works where it adds few rows: from a fifth of them on it locks the table, which takes one"
        means += " of the two (RIGHTS_MISSING)"
    return refused, means


def check_ownership(look: Look) -> Iterator[Finding]:
    """One finding for each owner. A superuser's membership is no right to hand out: its tables get another owner."""
    by_owner: dict[str, list[Row]] = defaultdict(list)
    for row in look.rows(_NOT_OWNED):
        by_owner[row["owner"]].append(row)
    for owner, rows in by_owner.items():
        tables = tuple(dict.fromkeys(row["table"] for row in rows))
        numbered = sorted({row["sequence"] for row in rows if row["sequence"]})
        if rows[0]["super"]:
            sql = "\n".join(f"ALTER {row['name']} OWNER TO {look.role};" for row in rows if row["name"])
        else:
            sql = f"GRANT {owner} TO {look.role} WITH INHERIT TRUE;"
        means = "imports work, but indexes of an empty table are kept up row by row and not built at its end; restores"
        means += " are refused"
        if numbered:
            means += f"; an import with a number that passes {some(numbered, 3)} is refused (SEQUENCE_NOT_OWNED)"
        found = f"it owns {len(tables):,} of the tables, and our role is no member of it: {some(tables)}"
        yield Finding("ownership", Severity.WARNING, f"role {owner}", found, means, sql, (RESTORE,), tables)


def check_sequences(look: Look) -> Iterator[Finding]:
    for row in look.rows(_SEQUENCES):
        missing = [w for w, has in (("USAGE", row["usable"]), ("SELECT", row["readable"])) if not has]
        if not missing:
            continue
        means = "a row with a number of the file's own cannot be followed by it (SEQUENCE_NOT_OWNED)"
        if "USAGE" in missing:
            means = "a row that leaves its number to it is refused (RIGHT_MISSING); " + means
        sql = f"GRANT {', '.join(missing)} ON SEQUENCE {row['name']} TO {look.role};"
        found = f"no {', '.join(missing)}"
        yield Finding("sequence", Severity.WARNING, row["name"], found, means, sql, tables=(row["table"],))


def check_neighbours(look: Look) -> Iterator[Finding]:
    """Rows that are referred to are looked for, and rows that refer to a deleted one are: both take reading."""
    for row in look.rows(_NEIGHBOURS):
        if row["usable"] and row["readable"] and not row["hidden"]:
            continue
        grants = [] if row["usable"] else [f"GRANT USAGE ON SCHEMA {row['schema']} TO {look.role};"]
        grants += [] if row["readable"] else [f"GRANT SELECT ON {row['other']} TO {look.role};"]
        grants += [f"ALTER ROLE {look.role} BYPASSRLS;"] if row["hidden"] else []
        if row["refers"]:
            found = f"its {row['name']} refers to {row['other']}, which our role cannot read in full"
            refused: tuple[str, ...] = IMPORTS
            means = "an import that fills the reference is refused (RIGHT_MISSING)"
        else:
            found = f"{row['other']} refers to it by {row['name']}, and our role cannot read that in full"
            means, refused = "an import that deletes rows is refused (ROWS_REFERENCED)", ("REPLACE",)
        yield Finding("reference", Severity.WARNING, row["table"], found, means, "\n".join(grants), refused)


def check_types(look: Look) -> Iterator[Finding]:
    for row in look.rows(_TYPES):
        grants = [] if row["seen"] else [f"GRANT USAGE ON SCHEMA {row['schema']} TO {look.role};"]
        grants += [] if row["usable"] else [f"GRANT USAGE ON TYPE {row['type']} TO {look.role};"]
        means = "exports work; an import that fills it needs the type, and is refused"
        found = f"a column of type {row['type']}, which our role may not use"
        yield Finding("type", Severity.WARNING, row["table"], found, means, "\n".join(grants), WRITES)


def check_functions(look: Look) -> Iterator[Finding]:
    for row in look.rows(_FUNCTIONS):
        sql = f"GRANT EXECUTE ON FUNCTION {row['function']} TO {look.role};"
        found = f"a default, check or index calls {row['function']}, which our role may not"
        means = "exports work; rows for which it is called are refused (RIGHT_MISSING)"
        yield Finding("function", Severity.WARNING, row["table"], found, means, sql, WRITES)


CHECKS = (check_rights, check_ownership, check_sequences, check_neighbours, check_types, check_functions)
