"""Downloads on the wire: the two download responses have one shape."""

from __future__ import annotations

from typing import TypeVar

from dataops.v1 import common_pb2, exports_pb2, imports_pb2

from server.download import Footer, Piece

R = TypeVar("R", exports_pb2.DownloadExportResponse, imports_pb2.DownloadImportReportResponse)


def piece(response: type[R], sent: Piece | Footer) -> R:
    """One message: bytes, or the footer."""
    if isinstance(sent, Piece):
        return response(offset=sent.offset, data=sent.data)
    return response(offset=sent.offset, footer=common_pb2.DownloadFooter(size_bytes=sent.size, sha256=sent.sha256))
