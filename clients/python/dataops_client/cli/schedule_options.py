"""What the options of `dataops schedule` say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from dataops_client.cli.options import chosen

if TYPE_CHECKING:
    from dataops.v1 import schedules_pb2

_SPAN = re.compile(r"(\d+)([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

CronOption = Annotated[
    str, typer.Option("--cron", help="Five fields of cron, or @daily, @weekly, @monthly: at 02:00.", show_default=False)
]
ZoneOption = Annotated[
    str, typer.Option("--time-zone", help="By its IANA name, e.g. Europe/Berlin; UTC if not given.", show_default=False)
]
TypeOption = Annotated[str, typer.Option("--type", help="full or incremental.", show_default=False)]
KeepOption = Annotated[
    str,
    typer.Option(
        "--keep", metavar="SPAN", help="How long its backups are kept: 36h, 90d, 52w; default: as the server does."
    ),
]
VerifyOption = Annotated[
    str, typer.Option("--verify", help="Prove each backup: present, decoded, restored, or none.", show_default=False)
]
OverlapOption = Annotated[
    str,
    typer.Option("--overlap", help="When the run before goes on: skip, or buffer-one (after it).", show_default=False),
]
CatchUpOption = Annotated[
    str, typer.Option("--catch-up", metavar="SPAN", help="How late one may begin after downtime; 24h if not given.")
]


@dataclass(frozen=True)
class Said:
    """The options of `create` and `update`; empty means not said."""

    name: str = ""
    cron: str = ""
    time_zone: str = ""
    backup_type: str = ""
    keep: str = ""
    verify: str = ""
    overlap: str = ""
    catch_up: str = ""

    def put_into(self, spec: schedules_pb2.ScheduleSpec, entities: Sequence[str] | None) -> None:
        """What is said, in place of what stands there; None leaves the entities.

        Raises:
            typer.BadParameter: an option says nothing that there is.
        """
        from dataops.v1 import backups_pb2, schedules_pb2

        for field, text in (("name", self.name), ("cron", self.cron), ("time_zone", self.time_zone)):
            if text:
                setattr(spec, field, text)
        if entities is not None:
            spec.entity_types[:] = entities
        if self.backup_type:
            (spec.backup_type,) = chosen([self.backup_type], backups_pb2.BackupType.Value, "BACKUP_TYPE_", "type")
        if self.overlap:
            values = schedules_pb2.OverlapPolicy.Value
            (spec.overlap_policy,) = chosen([self.overlap], values, "OVERLAP_POLICY_", "overlap")
        if self.verify.lower() == "none":
            spec.verify_level = backups_pb2.VERIFY_LEVEL_UNSPECIFIED
        elif self.verify:
            expected = ("present", "decoded", "restored", "none")
            values_of = backups_pb2.VerifyLevel.Value
            (spec.verify_level,) = chosen([self.verify], values_of, "VERIFY_LEVEL_", "level of a proof", expected)
        if self.keep.lower() == "default":
            spec.ClearField("retention")
        elif self.keep:
            spec.retention.FromSeconds(seconds_of("--keep", self.keep))
        if self.catch_up:
            spec.catch_up_window.FromSeconds(seconds_of("--catch-up", self.catch_up))


def seconds_of(option: str, text: str) -> int:
    """A span of time in seconds: a number of minutes, hours, days or weeks.

    Raises:
        typer.BadParameter: it is none.
    """
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None or len(found[1]) > 9:
        raise typer.BadParameter(f"{option} {text}: expected a span of time like 90m, 24h, 30d or 12w")
    return int(found[1]) * _SECONDS[found[2]]


def span_text(seconds: float) -> str:
    """The same the other way round, as people say it: 24h, and not 1d; 30d, and 12w."""
    for unit, least in (("w", 8), ("d", 2), ("h", 2), ("m", 1)):
        if seconds >= least * _SECONDS[unit] and not seconds % _SECONDS[unit]:
            return f"{seconds / _SECONDS[unit]:.0f}{unit}"
    return f"{seconds:g}s"
