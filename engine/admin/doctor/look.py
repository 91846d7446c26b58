"""What the checks of the platform database look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from psycopg.rows import dict_row

from engine.admin.doctor.finding import Finding
from engine.catalog import Catalog, Entity
from engine.db.platform import Connection

Row = dict[str, Any]


@dataclass
class Look:
    """A pinned session in autocommit, and what is known by it. `catalog` is None where it could not be read."""

    connection: Connection
    schemas: tuple[str, ...]
    catalog: Catalog | None = None
    _quoted: dict[tuple[str, ...], str] = field(default_factory=dict)

    def rows(self, query: str, **arguments: Any) -> list[Row]:
        """`schemas` is an argument of every query."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), {"schemas": list(self.schemas)} | arguments).fetchall()

    def row(self, query: str, **arguments: Any) -> Row:
        return self.rows(query, **arguments)[0]

    def quoted(self, *names: str) -> str:
        """A name, or one with its schema, as SQL wants it; by the server's own rule, with quotes where they must be."""
        if names not in self._quoted:
            query = "SELECT string_agg(quote_ident(n), '.' ORDER BY i) AS name FROM unnest(%(names)s::text[])"
            self._quoted[names] = self.row(query + " WITH ORDINALITY u (n, i)", names=list(names))["name"]
        return self._quoted[names]

    def table(self, entity: Entity) -> str:
        return self.quoted(entity.schema, entity.table)

    @property
    def entities(self) -> list[Entity]:
        return self.catalog.entities() if self.catalog is not None else []

    @cached_property
    def role(self) -> str:
        """The service's role, as SQL names it."""
        return self.quoted(self.row("SELECT current_user::text AS name")["name"])

    @cached_property
    def database(self) -> str:
        """The platform database, as SQL names it."""
        return self.quoted(self.connection.info.dbname)

    @cached_property
    def version(self) -> int:
        return self.connection.info.server_version


Check = Callable[[Look], Iterator[Finding]]
