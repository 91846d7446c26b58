"""`catalog.toml`: what an installation says of its entities beyond what PostgreSQL knows.

```toml
[groups.points]
entities = ["points_accounts", "points_ledger"]

[entities.users]
table = "public.users"            # where the entity's name is not the table's
created_field = "created_at"
updated_field = "updated_at"
status_field = "status"
filterable = ["role", "email"]    # left out: every field that PostgreSQL can compare; never a secret one
plain = ["token_count"]           # looks like a credential by its name, and is none

[entities.users.secrets]
password_hash = { fill = "!" }    # what a new row gets; without `fill` an import that adds rows is refused
api_key = { fill_sql = "gen_random_uuid()::text" }  # the same, evaluated for each row

[exclude]
tables = ["public.schema_migrations"]
```
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.catalog.model import Entity, Field, NotCovered
from engine.errors import InvalidRequest

_CREDENTIAL = re.compile(
    r"passw(or)?d|passphrase|secret|credential|api_?key|private_?key|access_?key|(auth|access|refresh|session|bearer)_?token"
    r"|token_?hash|(^|_)(otp|totp|pin|salt|pwd)($|_)",
    re.IGNORECASE,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRule(_Strict):
    fill: str | None = None
    fill_sql: str | None = None


class EntityRule(_Strict):
    table: str = ""
    created_field: str = ""
    updated_field: str = ""
    status_field: str = ""
    filterable: list[str] | None = None
    plain: list[str] = []
    secrets: dict[str, SecretRule] = {}


class GroupRule(_Strict):
    entities: list[str]


class ExcludeRule(_Strict):
    tables: list[str] = []


class CatalogFile(_Strict):
    """The file as a whole."""

    groups: dict[str, GroupRule] = {}
    entities: dict[str, EntityRule] = {}
    exclude: ExcludeRule = ExcludeRule()


def read_catalog_file(path: Path | None) -> CatalogFile:
    """The file's rules; none without a file.

    Raises:
        InvalidRequest: CATALOG_FILE_INVALID, naming the place.
    """
    if path is None:
        return CatalogFile()
    try:
        return CatalogFile(**tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise InvalidRequest(f"catalog file: {wrong}", reason="CATALOG_FILE_INVALID") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"catalog file: {error}", reason="CATALOG_FILE_INVALID") from None


def refine(entities: list[Entity], rules: CatalogFile) -> tuple[list[Entity], list[NotCovered]]:
    """The entities with the file's names, groups, secrets and roles of fields.

    Raises:
        InvalidRequest: CATALOG_FILE_INVALID when the file names a table or field that is not there: a secret that is
            misspelt would leave in every export.
    """
    by_table = {f"{e.schema}.{e.table}": e for e in entities}
    by_name = {e.name: e for e in entities}
    excluded = [_known(by_table, table, "exclude.tables") for table in rules.exclude.tables]
    renamed: dict[str, str] = {}
    for name, rule in rules.entities.items():
        found = by_table.get(rule.table) if rule.table else by_name.get(name)
        if found is None:
            raise _wrong(f"entities.{name}", rule.table or name, "a table of the configured schemas")
        if found.name in renamed:  # two entities of one table: what is secret in one would leave through the other
            expected = f"another table than that of entities.{renamed[found.name]}"
            raise _wrong(f"entities.{name}", rule.table or name, expected)
        renamed[found.name] = name
    refined: dict[str, Entity] = {}
    for entity in (e for e in entities if e not in excluded):
        name = renamed.get(entity.name, entity.name)
        if name in refined:
            raise _wrong(f"entities.{name}", name, "a name that no other table has")
        refined[name] = replace(entity, name=name)
    groups = _groups(rules, refined)
    result = [_with_rule(e, rules.entities.get(e.name, EntityRule()), groups.get(e.name, "")) for e in refined.values()]
    result = [replace(e, referenced_by=tuple(sorted(renamed.get(r, r) for r in e.referenced_by))) for e in result]
    return result, [NotCovered(f"{e.schema}.{e.table}", "catalog.toml excludes it") for e in excluded]


def _with_rule(entity: Entity, rule: EntityRule, group: str) -> Entity:
    names = {field.name for field in entity.fields}
    mentioned = [
        *(rule.filterable or ()),
        *rule.plain,
        *rule.secrets,
        rule.created_field,
        rule.updated_field,
        rule.status_field,
    ]
    for field in filter(None, mentioned):
        if field not in names:
            raise _wrong(f"entities.{entity.name}", field, "a field of the table")
    return replace(
        entity,
        group=group,
        created_field=rule.created_field,
        updated_field=rule.updated_field,
        status_field=rule.status_field,
        fields=tuple(_with_secret(field, rule) for field in entity.fields),
    )


def _with_secret(field: Field, rule: EntityRule) -> Field:
    declared = rule.secrets.get(field.name)
    looks = bool(_CREDENTIAL.search(field.name)) and field.name not in rule.plain
    secret = declared is not None or looks
    listed = field.comparable if rule.filterable is None else field.name in rule.filterable
    declared = declared or SecretRule()
    return replace(
        field, secret=secret, fill=declared.fill, fill_sql=declared.fill_sql, filterable=listed and not secret
    )


def _groups(rules: CatalogFile, refined: dict[str, Entity]) -> dict[str, str]:
    groups: dict[str, str] = {}
    for group, rule in rules.groups.items():
        if group in refined:
            raise _wrong(f"groups.{group}", group, "a name no entity has")
        for name in rule.entities:
            if name not in refined:
                raise _wrong(f"groups.{group}", name, "an entity")
            groups[name] = group
    return groups


def _known(by_table: dict[str, Entity], table: str, where: str) -> Entity:
    if table not in by_table:
        raise _wrong(where, table, "a table of the configured schemas")
    return by_table[table]


def _wrong(where: str, found: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"catalog file: {where}: found {found!r}, expected {expected}", reason="CATALOG_FILE_INVALID")
