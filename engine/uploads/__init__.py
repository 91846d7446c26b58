"""Uploads: files on their way in, resumable on part borders, sealed as they arrive."""

from engine.uploads.service import Uploads, UploadSweep
from engine.uploads.stream import MAX_CHUNK_BYTES, UploadStream

__all__ = ["MAX_CHUNK_BYTES", "UploadStream", "UploadSweep", "Uploads"]
