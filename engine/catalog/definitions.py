"""The definitions of tables, and of what stands around their rows, as PostgreSQL itself writes them: equal texts before
and after say that whatever was taken down and put up again is as it was."""

from __future__ import annotations

from collections.abc import Sequence

from engine.db.platform import Connection
from engine.errors import FailedPrecondition

_TREE = """
WITH named AS (SELECT unnest(%s::regclass[]) AS r)
SELECT p.relid::oid AS oid FROM named, pg_partition_tree(r) p UNION SELECT r::oid FROM named
"""

_DEFINITIONS = """
SELECT concat_ws(chr(31), 'relation', c.oid::regclass, c.relkind, c.relpersistence, pg_get_userbyid(c.relowner),
                 c.relacl, c.reloptions, c.relreplident, c.relrowsecurity, c.relforcerowsecurity, c.reltablespace,
                 pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'),
                 ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid
                       ORDER BY i.inhseqno))
FROM pg_class c WHERE c.oid = ANY(%(oids)s)
UNION ALL
SELECT concat_ws(chr(31), 'column', a.attrelid::regclass, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
                 a.attnotnull, a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attstorage,
                 a.attcompression, a.attstattarget, a.attacl, a.attoptions, pg_get_expr(d.adbin, d.adrelid),
                 col_description(a.attrelid, a.attnum))
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY(%(oids)s) AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT concat_ws(chr(31), 'constraint', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated,
                 k.conislocal, k.coninhcount, obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k WHERE k.conrelid = ANY(%(all)s)
UNION ALL
SELECT concat_ws(chr(31), 'index', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid), i.indisvalid,
                 i.indisclustered, i.indisreplident, c.reltablespace, obj_description(c.oid, 'pg_class'),
                 ARRAY(SELECT format('%%s=%%s', a.attnum, a.attstattarget) FROM pg_attribute a
                       WHERE a.attrelid = c.oid ORDER BY a.attnum))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = ANY(%(oids)s)
UNION ALL
SELECT concat_ws(chr(31), 'trigger', t.tgrelid::regclass, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid),
                 obj_description(t.oid, 'pg_trigger'))
FROM pg_trigger t WHERE t.tgrelid = ANY(%(oids)s) AND NOT t.tgisinternal
UNION ALL
SELECT concat_ws(chr(31), 'key trigger', t.tgrelid::regclass, k.conname, t.tgtype, t.tgenabled)
FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint
WHERE t.tgrelid = ANY(%(all)s) AND t.tgisinternal
UNION ALL
SELECT concat_ws(chr(31), 'rule', r.ev_class::regclass, r.rulename, r.ev_enabled, pg_get_ruledef(r.oid))
FROM pg_rewrite r WHERE r.ev_class = ANY(%(oids)s)
UNION ALL
SELECT concat_ws(chr(31), 'policy', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[],
                 pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p WHERE p.polrelid = ANY(%(oids)s)
UNION ALL
SELECT concat_ws(chr(31), 'publication', r.prrelid::regclass, p.pubname)
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = ANY(%(oids)s)
UNION ALL
SELECT concat_ws(chr(31), 'depends', d.objid::regclass, d.refclassid::regclass, d.refobjid, d.deptype)
FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'x'
  AND d.objid IN (SELECT unnest(%(oids)s::oid[]) UNION SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(oids)s))
ORDER BY 1
"""


def tree_of(connection: Connection, tables: Sequence[str]) -> list[int]:
    """The OIDs of the tables, qualified names as PostgreSQL reads them, and of their partitions; of an inheritance
    parent itself alone, as its rows are."""
    return [oid for (oid,) in connection.execute(_TREE, (list(tables),))]


def definitions_of(connection: Connection, oids: Sequence[int], others: Sequence[int] = ()) -> list[str]:
    """One text for each definition, in one order; of the tables `others` the constraints and what keeps them only."""
    found = connection.execute(_DEFINITIONS, {"oids": list(oids), "all": [*oids, *others]})
    return [str(line) for (line,) in found]


def require_same(what: str, before: Sequence[str], after: Sequence[str]) -> None:
    """Raises:
    FailedPrecondition: DEFINITIONS_NOT_EQUAL.
    """
    if after == before:
        return
    changed = sorted(set(before) ^ set(after))
    first = " ".join(changed[0].split("\x1f")[:3]) if changed else "their order"
    raise FailedPrecondition(
        f"{what}: {len(changed)} definitions are not as before, of the first: {first}; everything is as before",
        reason="DEFINITIONS_NOT_EQUAL",
    )
