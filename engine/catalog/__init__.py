"""What can be operated on: entities, their fields, keys, references and secrets."""

from engine.catalog.model import Catalog, Check, Entity, Field, ForeignKey, Trigger, UniqueKey
from engine.catalog.source import CatalogSource

__all__ = ["Catalog", "CatalogSource", "Check", "Entity", "Field", "ForeignKey", "Trigger", "UniqueKey"]
