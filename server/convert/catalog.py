"""Catalog: entities and fields on the wire."""

from __future__ import annotations

from dataops.v1 import catalog_pb2
from psycopg import sql

from engine.catalog import Catalog, Entity, Field, ForeignKey

_VARYING = frozenset({"varchar", "bpchar"})
_LENGTH_HEADER = 4
"""PostgreSQL keeps a text's greatest length in the type modifier, 4 more than it is."""


def entity_to_pb(entity: Entity, catalog: Catalog, *, fields: bool) -> catalog_pb2.Entity:
    return catalog_pb2.Entity(
        name=entity.name,
        group=entity.group,
        source=catalog_pb2.ENTITY_SOURCE_PLATFORM_TABLE,
        relation=sql.Identifier(entity.schema, entity.table).as_string(None),
        key_fields=[entity.column(column).name for column in entity.key],
        fields=[field_to_pb(field, entity, catalog) for field in entity.fields] if fields else (),
        estimated_rows=max(0, entity.estimated_rows),
        size_bytes=entity.size_bytes,
        created_field=entity.created_field,
        updated_field=entity.updated_field,
        status_field=entity.status_field,
        schema_fingerprint=bytes.fromhex(entity.fingerprint),
    )


def field_to_pb(field: Field, entity: Entity, catalog: Catalog) -> catalog_pb2.Field:
    """A secret field's default stays here: it may be the secret that every new row begins with."""
    has_value = field.default is not None or bool(field.identity) or field.generated
    return catalog_pb2.Field(
        name=field.name,
        type=field.type,
        required=not field.nullable and not has_value,
        nullable=field.nullable,
        unique=any(key.columns == (field.column,) and not key.partial for key in entity.unique),
        secret=field.secret,
        filterable=field.filterable and not field.secret,
        importable=not field.generated and field.identity != "ALWAYS",
        default_expression="" if field.secret or field.default is None else field.default,
        generated=field.generated,
        identity=bool(field.identity),
        max_length=field.modifier - _LENGTH_HEADER if field.base in _VARYING and field.modifier > 0 else None,
        choices=field.labels,
        reference=_reference(field, entity, catalog),
    )


def uncovered_to_pb(catalog: Catalog) -> list[catalog_pb2.UncoveredRelation]:
    """What no operation covers: relations that are no entities, and entities that nothing can be done with."""
    others = [
        catalog_pb2.UncoveredRelation(relation=other.name, code="NOT_AN_ENTITY", message=other.why)
        for other in catalog.not_covered
    ]
    refused = [
        catalog_pb2.UncoveredRelation(
            relation=sql.Identifier(entity.schema, entity.table).as_string(None),
            code="NOT_OPERABLE",
            message=entity.refused,
        )
        for entity in catalog.entities()
        if entity.refused
    ]
    return others + refused


def _reference(field: Field, entity: Entity, catalog: Catalog) -> catalog_pb2.FieldReference | None:
    found = next((key for key in entity.references if field.column in key.columns), None)
    return None if found is None else _target(found, field.column, catalog)


def _target(key: ForeignKey, column: str, catalog: Catalog) -> catalog_pb2.FieldReference:
    there = key.target_columns[key.columns.index(column)]
    target = catalog.of_table(key.target_schema, key.target_table)
    if target is None:
        return catalog_pb2.FieldReference(field=there)
    return catalog_pb2.FieldReference(entity=target.name, field=target.column(there).name)
