"""The rpcs that the contract has and this version does not do: each answers UNIMPLEMENTED, reason NOT_BUILT.

One list, read by the interceptor that answers and by the test that lets a proto file change freely
(buf.yaml, breaking.ignore) only while one of its rpcs stands here.
"""

from __future__ import annotations


def _rpcs(service: str, *names: str) -> set[str]:
    return {f"/dataops.v1.{service}/{name}" for name in names}


NOT_BUILT: frozenset[str] = frozenset(
    _rpcs("ImportService", "RevertImport")
    | _rpcs("AuditService", "VerifyAuditLog", "ExportAuditLog")
    | _rpcs("AccessService", "PutRole", "DeleteRole")
)
