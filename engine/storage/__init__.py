"""Where sealed objects are kept: bytes under names, nothing else. `storage_from` makes one from a setting."""

from engine.storage.base import Storage, StoredObject
from engine.storage.open import storage_from

__all__ = ["Storage", "StoredObject", "storage_from"]
