"""The permission grammar: `operation[:entity[:mode]]`.

Each part is exact or `*`; a part left out means `*`. An operation is a `noun.verb` of the contract's permission
options; `noun.*` stands for all of a noun. Permissions only add up: there is no word that takes one away, so what a
role may not do is what none of its permissions names.

Grants, the audit trail, webhooks, restores and other people's uploads are on no entity, or on all of them: a permission
for one entity does not reach them, or `*:users` could grant itself everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from engine.errors import InvalidRequest

ANY = "*"
WHOLE = ("access.", "audit.", "webhooks.", "restores.", "uploads.manage")
"""How the operations begin that only a permission for every entity and mode permits."""
_OPERATION = re.compile(r"\*|[a-z]+\.(\*|[a-z_]+)")


@dataclass(frozen=True)
class Permission:
    """One thing that is permitted."""

    operation: str
    entity: str = ANY
    mode: str = ANY

    @classmethod
    def parse(cls, text: str) -> Self:
        """The permission in `text`.

        Raises:
            InvalidRequest: PERMISSION_INVALID.
        """
        # An entity's name may hold a colon (quoted table names may); an import mode may not, so it is cut off last.
        operation, _, rest = text.partition(":")
        entity, colon, mode = rest.rpartition(":")
        if not colon:
            entity, mode = rest, ANY
        if not _OPERATION.fullmatch(operation):
            raise InvalidRequest(
                f"permission: expected operation[:entity[:mode]], found {text[:80]!r}", reason="PERMISSION_INVALID"
            )
        return cls(operation, entity or ANY, mode or ANY)

    def __str__(self) -> str:
        if self.mode != ANY or ":" in self.entity:
            return f"{self.operation}:{self.entity}:{self.mode}"
        return self.operation if self.entity == ANY else f"{self.operation}:{self.entity}"

    def covers(self, operation: str, entity: str | None = None, mode: str | None = None) -> bool:
        """Whether it permits the operation on that entity in that mode; None asks for any entity or mode at all."""
        if operation.startswith(WHOLE):
            entity = mode = ANY
        return (
            self._covers_operation(operation)
            and (entity is None or self.entity in (ANY, entity))
            and (mode is None or self.mode in (ANY, mode))
        )

    def _covers_operation(self, operation: str) -> bool:
        if self.operation in (ANY, operation):
            return True
        noun, _, verb = self.operation.partition(".")
        return verb == ANY and operation.startswith(noun + ".")


def permitted(permissions: Iterable[str], operation: str, entity: str | None = None, mode: str | None = None) -> bool:
    """Whether one of the permissions covers it."""
    return any(Permission.parse(text).covers(operation, entity, mode) for text in permissions)
