"""What stands around the rows of tables, as PostgreSQL shows it."""

from __future__ import annotations


def definitions(world, *tables):
    """What psql would show of them, as far as a restore could change it."""
    return world.sql(
        """
        SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated::text,
               obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conrelid = ANY(%s::regclass[])
        UNION ALL SELECT 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text,
               pg_get_indexdef(i.indexrelid), i.indisclustered::text, obj_description(i.indexrelid, 'pg_class')
               FROM pg_index i WHERE indrelid = ANY(%s::regclass[])
        UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled::text, NULL
               FROM pg_trigger WHERE tgrelid = ANY(%s::regclass[]) AND NOT tgisinternal ORDER BY 1, 2, 3
        """,
        *[[f"public.{t}" for t in tables]] * 3,
    )
