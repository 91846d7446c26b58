"""Settings: one frozen object, from `DATAOPS_*` variables, `DATAOPS_*_FILE` for secrets, or one TOML file.

Unknown names are refused: a misspelt setting that is silently ignored is how an installation runs without what its
operator believes it has. `docs/configuration.md` is made from this module by `dataops-admin config docs`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from engine.db.database import libpq_dsn
from engine.errors import InvalidRequest

PREFIX = "DATAOPS_"
CLIENT_NAMES = frozenset({"ADDRESS", "CA_FILE", "TOKEN", "TOKEN_FILE", "STACK", "ROLE", "TEST_DATA"})
"""Variables of the client and of tests, which share the prefix and are no settings of ours."""


def _libpq_uri(dsn: str) -> str:
    """Refuse what libpq and SQLAlchemy, both of which get it, do not understand alike: several hosts are such."""
    try:
        alike = dsn.startswith(("postgresql://", "postgres://")) and conninfo_to_dict(libpq_dsn(dsn)) == (
            conninfo_to_dict(dsn)
        )
        port = make_url(dsn).port
    except (psycopg.Error, SQLAlchemyError, ValueError):
        alike, port = False, None
    if not alike or (port is not None and not 0 < port < 1 << 16):
        raise PydanticCustomError(
            "libpq_uri", "expected a libpq URI of one host: postgresql://user:password@host:port/database"
        )
    return dsn


Dsn = Annotated[str, AfterValidator(_libpq_uri)]


class Settings(BaseModel):
    """What an installation decides. Durations are seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    control_dsn: Dsn = Field(
        description="libpq URI of the database that holds the control schema `dataops`.", repr=False
    )
    platform_dsn: Dsn = Field(description="libpq URI of the database whose rows are operated on.", repr=False)
    platform_schemas: str = Field("public", description="Schemas whose tables are entities, comma-separated.")
    catalog_file: Path | None = Field(None, description="catalog.toml: names, groups, secret fields, fills.")
    redis_url: str = Field("", description="Redis or Valkey that rings the workers; empty: they only look every 2 s.")
    artifacts: str = Field(description="Where sealed parts are kept: a folder, or `memory:` for tests.")
    key_file: Path | None = Field(None, description="Key ring file: one `<key id> <base64 of 32 bytes>` per line.")
    keys: str = Field(
        "", description="The key ring itself, in the file's form; `;` may stand for line ends.", repr=False
    )
    active_key: str = Field("", description="Key id that wraps new data keys; empty: the ring's first.")

    listen: str = Field("127.0.0.1:8443", description="Address of the TLS listener for callers with a token.")
    ready_file: Path | None = Field(None, description="Written as JSON by a server that serves: address, pid, health.")
    max_calls: int = Field(4_096, ge=1, description="Calls under way at once, watches among them.")
    tls_cert_file: Path | None = Field(None, description="PEM chain of the server.")
    tls_key_file: Path | None = Field(None, description="PEM key of the server.")
    jwt_issuer: str = Field("", description="The `iss` a token must carry.")
    jwt_audience: str = Field("dataops", description="The `aud` a token must carry.")
    jwks_file: Path | None = Field(None, description="JSON Web Key Set that tokens are verified with.")
    bootstrap_admins: str = Field("", description="Subjects, comma-separated, that become super_admin at start.")
    anonymous_reflection: bool = Field(False, description="Whether reflection answers callers without a token.")
    drain_seconds: float = Field(20, gt=0, description="How long a stopping server lets streams end.")
    rpc_threads: int = Field(16, ge=1, le=256, description="Threads, and control connections, that serve rpcs.")

    max_upload_bytes: int = Field(64 << 30, ge=1, description="Largest upload.")
    max_uploads_per_principal: int = Field(20, ge=1, description="Open uploads one principal may have.")
    upload_idle_seconds: float = Field(86_400, gt=0, description="An unfinished upload is aborted after this.")
    plan_seconds: float = Field(86_400, gt=0, description="An unapplied plan expires after this.")
    export_seconds: float = Field(7 * 86_400, gt=0, description="An export's file expires after this.")
    report_seconds: float = Field(30 * 86_400, gt=0, description="Reports, rejects and undo data expire after this.")
    applied_plan_seconds: float = Field(
        7 * 86_400, gt=0, description="The plan of an apply that came to nothing is removed after this."
    )
    backup_seconds: float = Field(
        90 * 86_400, gt=0, description="A backup that was asked for, or a schedule's, is removed after this."
    )
    retention_floor: int = Field(
        3, ge=1, le=1_000, description="Newest good backups of the same entities that stay, whatever their age."
    )
    retention_settle_seconds: float = Field(
        86_400, ge=0, description="Retention removes nothing until the clock has gone on evenly this long."
    )
    safety_backup_seconds: float = Field(
        30 * 86_400, gt=0, description="A backup taken before an import or a restore is removed after this."
    )
    incremental_method: str = Field(
        "candidates",
        pattern="^(candidates|content)$",
        description="How increments find changes: by proven candidates where that can be, or all by content.",
    )
    restore_plan_seconds: float = Field(900, gt=0, description="A restore's plan and its phrase expire after this.")
    approval_deletes: int | None = Field(
        None,
        ge=0,
        description="An import that deletes more rows must be approved by another person, who may `imports.approve`; "
        "rows that foreign keys delete or change count. Unset: none must.",
    )
    restore_needs_approval: bool = Field(False, description="Whether another person must approve a restore.")
    max_import_errors: int = Field(1_000_000, ge=1, description="Row errors one plan keeps; more fail it.")

    lease_seconds: float = Field(15, gt=0, description="A worker silent this long loses its job.")
    heartbeat_seconds: float = Field(3, gt=0, description="How often a worker renews its lease.")
    look_seconds: float = Field(2, gt=0, description="How often a worker looks for jobs without being rung.")
    watch_heartbeat_seconds: float = Field(15, gt=0, description="How often an idle watch says it is alive.")
    schedule_seconds: float = Field(5, gt=0, description="How often a worker looks for schedules that have come due.")
    webhook_seconds: float = Field(5, gt=0, description="How often a worker looks for webhooks to send.")
    webhook_ca_file: Path | None = Field(
        None, description="Authorities (PEM) that receivers' certificates may be of, beside the system's."
    )
    webhook_private_hosts: str = Field(
        "", description="Hosts, comma-separated, that webhooks may be sent to although their addresses are not public."
    )
    sweep_seconds: float = Field(60, gt=0, description="How often orphans and expired artifacts are swept.")
    health_listen: str = Field(
        "", description="Address of /livez, /readyz and /metrics (plain HTTP, port 0: any free one); empty: off."
    )
    health_public: bool = Field(False, description="Let health_listen be an address that other hosts can reach.")
    log_format: str = Field("json", pattern="^(json|text)$", description="json for machines, text for people.")
    fault_hooks: bool = Field(False, description="Honour DATAOPS_FAULT_* hooks; for tests only.")


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process: `DATAOPS_CONFIG` names a TOML file, variables win over it.

    Raises:
        InvalidRequest: CONFIG_INVALID, naming each unknown, missing or wrong setting, never a value.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    if path := environ.get(PREFIX + "CONFIG"):
        try:
            values.update(tomllib.loads(_text(PREFIX + "CONFIG", path)))
        except tomllib.TOMLDecodeError as error:
            raise InvalidRequest(f"{PREFIX}CONFIG: expected TOML: {error}", reason="CONFIG_INVALID") from None
    values.update(from_environment(environ))
    try:
        return Settings(**values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise InvalidRequest(f"settings: {wrong}", reason="CONFIG_INVALID") from None


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that variables give, known ones and others, as text by the name of their field.

    Raises:
        InvalidRequest: CONFIG_INVALID for one that is given twice, or whose file cannot be read.
    """
    values: dict[str, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX)
        if key == "CONFIG" or key in CLIENT_NAMES or key.startswith("FAULT_AT"):
            continue
        field = key.lower()
        if field not in Settings.model_fields and field.endswith("_file"):
            field, value = field.removesuffix("_file"), _text(name, value).strip()
        if field in values:
            raise InvalidRequest(
                f"{PREFIX}{field.upper()}: found it beside {PREFIX}{field.upper()}_FILE, expected one of them",
                reason="CONFIG_INVALID",
            )
        values[field] = value
    return values


def _text(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidRequest(f"{name}: cannot read the file it names: {why}", reason="CONFIG_INVALID") from None
