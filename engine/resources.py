"""What a process works with, opened once at its start and closed at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.artifacts import ArtifactStore
from engine.backups.repository import Repository
from engine.catalog import CatalogSource
from engine.clock import Clock, utc_now
from engine.config import Settings
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.platform import Platform
from engine.db.revision import require_revision
from engine.health.meters import Meters
from engine.jobs.doorbell import Doorbell
from engine.storage import storage_from


@dataclass(frozen=True)
class Resources:
    """Shared by all threads of a process. Nothing in it belongs to one request or job."""

    settings: Settings
    db: Database
    platform: Platform
    keys: KeyRing
    artifacts: ArtifactStore
    repository: Repository
    catalogs: CatalogSource
    bell: Doorbell
    clock: Clock = utc_now
    meters: Meters = field(default_factory=Meters)

    def close(self) -> None:
        self.bell.close()
        self.db.close()


def open_resources(settings: Settings, *, name: str, pool_size: int) -> Resources:
    """The resources of a process called `name`, with at most `pool_size` control connections (and two to spare).

    The platform database is not asked for: a process starts, and answers, while it is away.

    Raises:
        FailedPrecondition: SCHEMA_REVISION.
        InvalidRequest: KEYS_MISSING, KEYS_INVALID, STORAGE_SETTING, CATALOG_FILE_INVALID.
    """
    keys = KeyRing.from_settings(settings)
    storage = storage_from(settings.artifacts)
    db = Database(settings.control_dsn, pool_size=pool_size, application_name=name)
    try:
        require_revision(db.engine)
        platform = Platform(settings.platform_dsn)
        artifacts, meters = ArtifactStore(db, storage, keys), Meters()
        return Resources(
            settings=settings,
            db=db,
            platform=platform,
            keys=keys,
            artifacts=artifacts,
            repository=Repository(storage, keys, artifacts.vault),
            catalogs=CatalogSource(platform, settings.platform_schemas, settings.catalog_file),
            bell=Doorbell(settings.redis_url, meters.rings_failed.inc),
            meters=meters,
        )
    except BaseException:
        db.close()
        raise
