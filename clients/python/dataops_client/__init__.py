"""The client of DataOps: one object for programs, and the pieces it is made of.

    client    DataOps, the whole service over one channel
    imports   its calls about uploads and imports; exports, backups, restores, schedules, jobs and overview likewise
    mapping   mapping files; conditions: which rows an export takes, as people write it
    channel   TLS channels with a token, keepalive and safe retries; synchronous and aio
    upload    uploads that go on where they broke off
    resume    uploads that another process began
    download  downloads that do, into files that appear whole
    watch     a job's events over any number of connections
    errors    what a call can end in
    cli       the `dataops` command (extra `cli`)

The names below are loaded at first use: `dataops --help` must not wait for grpc.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataops_client.channel import TokenFile, open_aio_channel, open_channel
    from dataops_client.client import DataOps
    from dataops_client.conditions import ConditionError, parse_condition, parse_order
    from dataops_client.download import Downloaded, download_file
    from dataops_client.errors import DataOpsError, JobFailed
    from dataops_client.mapping import MappingFileError, read_mapping
    from dataops_client.resume import UploadMemory
    from dataops_client.upload import upload_file
    from dataops_client.version import VERSION
    from dataops_client.watch import wait_for_job, watch_job

__all__ = [
    "VERSION",
    "ConditionError",
    "DataOps",
    "DataOpsError",
    "Downloaded",
    "JobFailed",
    "MappingFileError",
    "TokenFile",
    "UploadMemory",
    "download_file",
    "open_aio_channel",
    "open_channel",
    "parse_condition",
    "parse_order",
    "read_mapping",
    "upload_file",
    "wait_for_job",
    "watch_job",
]

_HOMES = {
    "ConditionError": "conditions",
    "DataOps": "client",
    "DataOpsError": "errors",
    "Downloaded": "download",
    "JobFailed": "errors",
    "MappingFileError": "mapping",
    "TokenFile": "channel",
    "UploadMemory": "resume",
    "VERSION": "version",
    "download_file": "download",
    "open_aio_channel": "channel",
    "open_channel": "channel",
    "parse_condition": "conditions",
    "parse_order": "conditions",
    "read_mapping": "mapping",
    "upload_file": "upload",
    "wait_for_job": "watch",
    "watch_job": "watch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataops_client.{_HOMES[name]}"), name)
