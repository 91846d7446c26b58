"""The contract at run time: every rpc with its permission, audit kind and request type, read from the descriptors."""

from __future__ import annotations

from dataclasses import dataclass

from dataops.v1 import (
    access_pb2,
    audit_pb2,
    backups_pb2,
    catalog_pb2,
    exports_pb2,
    imports_pb2,
    jobs_pb2,
    options_pb2,
    overview_pb2,
    restores_pb2,
    schedules_pb2,
    uploads_pb2,
    webhooks_pb2,
)
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

AUTHENTICATED = "authenticated"
"""The permission of rpcs that every caller with a valid identity may call."""

PACKAGE = "/dataops.v1."

FILES = (
    access_pb2,
    audit_pb2,
    backups_pb2,
    catalog_pb2,
    exports_pb2,
    imports_pb2,
    jobs_pb2,
    overview_pb2,
    restores_pb2,
    schedules_pb2,
    uploads_pb2,
    webhooks_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True)
class Rpc:
    """What the contract says of one rpc."""

    method: str
    permission: str
    audit: int

    @property
    def noun(self) -> str:
        """The kind of resource: `imports` of `imports.apply`."""
        return self.permission.partition(".")[0]


def _rpc(method: MethodDescriptor) -> Rpc:
    options = method.GetOptions()
    return Rpc(
        f"/{method.containing_service.full_name}/{method.name}",
        options.Extensions[options_pb2.permission],
        options.Extensions[options_pb2.audit],
    )


RPCS: dict[str, Rpc] = {rpc.method: rpc for service in SERVICES for rpc in map(_rpc, service.methods)}


def rules_of(field: FieldDescriptor) -> options_pb2.FieldRules | None:
    """The field's limits; None when it has none."""
    options = field.GetOptions()
    return options.Extensions[options_pb2.rules] if options.HasExtension(options_pb2.rules) else None
