"""Reads PostgreSQL's own catalogs: one query a kind of thing, for all configured schemas at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from psycopg.rows import dict_row

from engine.catalog.model import Check, Entity, Field, ForeignKey, NotCovered, Trigger, UniqueKey
from engine.db.platform import Connection

Row = dict[str, Any]

_RELATIONS = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, row_security_active(c.oid) AS row_security,
       greatest(c.reltuples, 0)::bigint AS rows,
       (SELECT coalesce(sum(pg_total_relation_size(p.relid)), 0) FROM pg_partition_tree(c.oid) p) AS parts_bytes,
       pg_total_relation_size(c.oid) AS bytes, pg_has_role(c.relowner, 'USAGE') AS owned,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid) AS has_rules
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%(schemas)s) AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
  AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
WITH RECURSIVE base AS (
    SELECT t.oid AS id, t.oid, t.typtype, t.typbasetype, t.typtypmod AS modifier, t.typnotnull AS required,
           CASE WHEN t.typtype = 'd' THEN pg_get_expr(t.typdefaultbin, 0) END AS fallback FROM pg_type t
    UNION ALL
    SELECT b.id, t.oid, t.typtype, t.typbasetype, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE b.modifier END,
           b.required OR t.typnotnull,
           coalesce(b.fallback, CASE WHEN t.typtype = 'd' THEN pg_get_expr(t.typdefaultbin, 0) END)
    FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd'
), ordered AS MATERIALIZED (
    SELECT oc.opcintype FROM pg_opclass oc JOIN pg_am am ON am.oid = oc.opcmethod
    WHERE am.amname = 'btree' AND oc.opcdefault
), comparable AS MATERIALIZED (
    SELECT t.oid FROM pg_type t WHERE t.typtype IN ('e', 'r', 'm')
    UNION SELECT o.opcintype FROM ordered o
    UNION SELECT c.castsource FROM pg_cast c JOIN ordered o ON o.opcintype = c.casttarget
    WHERE c.castmethod = 'b' AND c.castcontext = 'i'
)
SELECT a.attrelid AS relation, a.attname AS name, a.attnum AS number, format_type(a.atttypid, a.atttypmod) AS type,
       format_type(b.oid, CASE WHEN t.typtype = 'd' THEN b.modifier ELSE a.atttypmod END) AS storage_type,
       CASE WHEN a.attcollation <> bt.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) END
           AS collation,
       format_type(b.oid, -1) AS bare_type, -- with -1 it is bpchar and "bit", which stand for any length
       CASE WHEN et.typtype = 'e' THEN 'enum' ELSE format_type(et.oid, -1) END AS element,
       coalesce(et.oid, bt.oid) IN (SELECT oid FROM comparable) AS comparable,
       bt.typreceive <> 0 AS receives,
       CASE WHEN bt.typnamespace <> 'pg_catalog'::regnamespace AND EXISTS (
           SELECT FROM pg_type pt WHERE pt.typname = bt.typname AND pt.typnamespace = 'pg_catalog'::regnamespace
       ) THEN format_type(b.oid, -1) ELSE bt.typname END AS base,
       bt.typcategory AS category, NOT (a.attnotnull OR b.required) AS nullable,
       coalesce(pg_get_expr(d.adbin, d.adrelid), b.fallback) AS expression, a.attidentity AS identity,
       a.attgenerated <> '' AS generated,
       CASE WHEN t.typtype = 'd' THEN b.modifier ELSE a.atttypmod END AS modifier, t.typtype = 'd' AS is_domain,
       (SELECT format('OPERATOR(%%I.%%s)', opn.nspname, o.oprname) FROM pg_opclass oc
        JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
        JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
          AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
        JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace opn ON opn.oid = o.oprnamespace
        WHERE oc.opcdefault AND oc.opcintype = bt.oid AND opn.nspname <> 'pg_catalog' LIMIT 1) AS equality,
       EXISTS (SELECT FROM pg_cast pc WHERE pc.castsource = 'text'::regtype AND pc.casttarget = bt.oid
               AND pc.castmethod = 'f') AS text_cast,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = bt.oid ORDER BY e.enumsortorder) AS labels
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN base b ON b.id = a.atttypid AND b.typtype <> 'd'
JOIN pg_type bt ON bt.oid = b.oid
LEFT JOIN pg_type et ON et.typarray = b.oid
LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY(%(oids)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

_UNIQUE = """
WITH equality AS MATERIALIZED (
    SELECT oc.oid AS class, oc.opcdefault AS standard, oc.opcintype AS type, ao.amopopr AS operator
    FROM pg_opclass oc JOIN pg_am am ON am.oid = oc.opcmethod AND am.amname = 'btree'
    JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
      AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
)
SELECT i.indrelid AS relation, c.relname AS name, i.indisprimary AS primary, i.indimmediate AS immediate,
       i.indpred IS NOT NULL AS partial, i.indexprs IS NOT NULL AS on_expressions, i.indisvalid AS valid,
       NOT i.indnullsnotdistinct AS nulls_distinct, i.indisexclusion AS overlaps,
       EXISTS (SELECT FROM unnest(i.indclass::oid[], i.indcollation::oid[], i.indkey::int2[]) k (class, coll, attnum)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
               JOIN equality mine ON mine.class = k.class
               WHERE NOT EXISTS (SELECT FROM equality d
                                 WHERE d.standard AND d.type = mine.type AND d.operator = mine.operator)
                  OR k.coll <> a.attcollation AND EXISTS (SELECT FROM pg_collation co
                      WHERE co.oid IN (k.coll, a.attcollation) AND NOT co.collisdeterministic)) AS own_equality,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, n)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.n) AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY(%(oids)s) AND i.indisunique
ORDER BY i.indrelid, c.relname
"""

_CONSTRAINTS = """
SELECT k.conrelid AS relation, k.conname AS name, k.contype AS kind, pg_get_expr(k.conbin, k.conrelid) AS expression,
       k.confmatchtype = 'f' AS match_full, k.confupdtype AS on_update, k.confdeltype AS on_delete,
       k.confrelid AS target, fn.nspname AS target_schema, fc.relname AS target_table,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n) AS target_columns
FROM pg_constraint k
LEFT JOIN pg_class fc ON fc.oid = k.confrelid LEFT JOIN pg_namespace fn ON fn.oid = fc.relnamespace
WHERE k.conrelid = ANY(%(oids)s) AND k.contype IN ('c', 'f', 'x')
  AND k.conparentid = 0 -- else of a key to a partitioned table there is one to each of its partitions too
  AND coalesce(to_jsonb(k) ->> 'conenforced', 'true')::boolean -- PostgreSQL 18's column
ORDER BY k.conrelid, k.conname
"""

_TRIGGERS = """
WITH RECURSIVE tree (root, oid) AS (
    SELECT o, o FROM unnest(%(oids)s::oid[]) o
    UNION ALL
    SELECT t.root, i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
)
SELECT tree.root AS relation, t.tgname AS name, t.tgtype::int AS type, t.tgenabled AS enabled
FROM tree JOIN pg_trigger t ON t.tgrelid = tree.oid
WHERE NOT t.tgisinternal AND t.tgparentid = 0 -- a partition's copies of its table's triggers apart
ORDER BY tree.root, t.tgname, t.tgrelid
"""

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_IDENTITY = {"a": "ALWAYS", "d": "BY DEFAULT"}
_NOT_TABLES = {"f": "a foreign table", "v": "a view", "m": "a materialized view"}


def read_tables(connection: Connection, schemas: list[str]) -> tuple[list[Entity], list[NotCovered]]:
    """Every table of `schemas` as an entity of its own name, and what else was found there.

    The entity's name is the table's; prefixed by the schema where two schemas hold a table of one name.
    """
    relations = _rows(connection, _RELATIONS, {"schemas": schemas})
    tables = [r for r in relations if r["kind"] in ("r", "p") and r["readable"]]
    other = [NotCovered(f"{r['schema']}.{r['name']}", _why_not(r)) for r in relations if r not in tables]
    oids = {"oids": [r["oid"] for r in tables]}
    columns = _by_relation(_rows(connection, _COLUMNS, oids))
    unique = _by_relation(_rows(connection, _UNIQUE, oids))
    constraints = _by_relation(_rows(connection, _CONSTRAINTS, oids))
    triggers = _by_relation(_rows(connection, _TRIGGERS, oids))
    names = _names(tables)
    pointing: dict[int, set[str]] = defaultdict(set)
    for oid, rows in constraints.items():
        for row in rows:
            if row["kind"] == "f" and oid in names:
                pointing[row["target"]].add(names[oid])
    entities = [
        _entity(
            r, names[r["oid"]], columns[r["oid"]], unique[r["oid"]], constraints[r["oid"]], triggers[r["oid"]],
            tuple(sorted(pointing[r["oid"]])),
        )
        for r in tables
    ]  # fmt: skip
    return entities, other


def _why_not(relation: Row) -> str:
    if relation["kind"] in _NOT_TABLES:
        return f"it is {_NOT_TABLES[relation['kind']]}"
    return "the service's role has no SELECT on it"


def _entity(
    relation: Row,
    name: str,
    columns: list[Row],
    unique: list[Row],
    constraints: list[Row],
    triggers: list[Row],
    referenced_by: tuple[str, ...],
) -> Entity:
    fields = tuple(_field(row) for row in columns)
    nullable = {field.column: field.nullable for field in fields}
    keys = tuple(
        UniqueKey(
            name=row["name"],
            columns=tuple(row["columns"]),
            primary=row["primary"],
            usable=row["immediate"]
            and row["valid"]
            and not row["partial"]
            and not any(map(nullable.get, row["columns"])),
            partial=row["partial"],
            nulls_distinct=row["nulls_distinct"],
            deferrable=not row["immediate"],
        )
        for row in unique
        if not row["on_expressions"] and not row["own_equality"]
    )
    return Entity(
        name=name,
        schema=relation["schema"],
        table=relation["name"],
        fields=fields,
        key=_key(keys),
        unique=keys,
        expression_keys=(
            *(r["name"] for r in unique if r["on_expressions"] or r["overlaps"] or r["own_equality"]),
            *(row["name"] for row in constraints if row["kind"] == "x"),
        ),
        references=tuple(_reference(row) for row in constraints if row["kind"] == "f"),
        referenced_by=referenced_by,
        checks=tuple(
            Check(row["name"], row["expression"], tuple(row["columns"])) for row in constraints if row["kind"] == "c"
        ),
        triggers=tuple(_trigger(row) for row in triggers),
        has_rules=relation["has_rules"],
        refused="row-level security hides rows of it from the service's role" if relation["row_security"] else "",
        partitioned=relation["kind"] == "p",
        owned=relation["owned"],
        estimated_rows=relation["rows"],
        size_bytes=int(relation["parts_bytes"] if relation["kind"] == "p" else relation["bytes"]),
    )


def _field(row: Row) -> Field:
    return Field(
        name=row["name"],
        column=row["name"],
        type=row["type"],
        storage_type=row["storage_type"],
        bare_type=row["bare_type"],
        element=row["element"] or "",
        comparable=row["comparable"],
        receives=row["receives"],
        collation=row["collation"] or "",
        equality=row["equality"] or "=",
        base=row["base"],
        category=row["category"],
        nullable=row["nullable"],
        default=None if row["generated"] else row["expression"],
        identity=_IDENTITY.get(row["identity"], ""),
        generated=row["generated"],
        labels=tuple(row["labels"]),
        modifier=row["modifier"],
        is_domain=row["is_domain"],
        text_cast=row["text_cast"],
    )


def _key(keys: tuple[UniqueKey, ...]) -> tuple[str, ...]:
    """The primary key; else the usable unique index with the fewest columns, then by name; else none."""
    usable = sorted((k for k in keys if k.usable), key=lambda k: (not k.primary, len(k.columns), k.name))
    return usable[0].columns if usable else ()


def _reference(row: Row) -> ForeignKey:
    return ForeignKey(
        name=row["name"],
        columns=tuple(row["columns"]),
        target_schema=row["target_schema"],
        target_table=row["target_table"],
        target_columns=tuple(row["target_columns"]),
        on_update=_ACTIONS[row["on_update"]],
        on_delete=_ACTIONS[row["on_delete"]],
        match_full=row["match_full"],
    )


def _trigger(row: Row) -> Trigger:
    """`tgtype` is a bit set: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate, 64 instead of."""
    bits = row["type"]
    events = {4: "INSERT", 8: "DELETE", 16: "UPDATE", 32: "TRUNCATE"}
    return Trigger(
        name=row["name"],
        row=bool(bits & 1),
        timing="BEFORE" if bits & 2 else "INSTEAD OF" if bits & 64 else "AFTER",
        events=tuple(word for bit, word in events.items() if bits & bit),
        fires=row["enabled"] in ("O", "A"),
    )


def _names(tables: list[Row]) -> dict[int, str]:
    """Each table's own name where no other has it, else with its schema; quoted where even that is another one's."""
    plain, qualified = Counter(t["name"] for t in tables), Counter(f"{t['schema']}.{t['name']}" for t in tables)
    names = {}
    for table in tables:
        name = table["name"] if plain[table["name"]] == 1 else f"{table['schema']}.{table['name']}"
        others = plain[name] + qualified[name] - 1 if name != table["name"] else qualified[name]
        names[table["oid"]] = f'"{table["schema"]}"."{table["name"]}"' if others else name
    return names


def _rows(connection: Connection, query: str, arguments: dict[str, Any]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, arguments).fetchall()


def _by_relation(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["relation"]].append(row)
    return found
