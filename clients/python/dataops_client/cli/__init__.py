"""The `dataops` command.

What a command found goes to standard output; progress, questions and errors to standard error, so that the
output can be piped. Progress is live bars on a terminal and plain lines elsewhere; tables are tab-separated
lines when piped. `--json` prints one JSON document instead (a watch: one line for each event). Every command
that does not write a file also takes it as `-o json`; those that do write one (`export`, `exports download`,
`imports report`) name it by `-o FILE`.

Exit codes:
    0    done; with --plan-only: planned
    1    failed: a defect of the server, damaged data, bytes that did not arrive, a job that was cancelled
    2    wrong usage: an unknown option, no such file, a wrong mapping file, no server configured
    3    not authenticated, or not permitted
    4    no such entity, upload, import, export, backup, restore, schedule, webhook, job or part of a report
    5    refused, at once or by the job: the request, the file or the state does not allow it
    6    the server, its workers or a database cannot be reached, or is busy: the same may succeed later
    8    done, but rows of the file were refused (only with --strict)
    9    planned, not applied or approved, nothing was changed: nobody could be asked and --yes or --phrase was not
         given, the answer was no, the number of deletes was not confirmed, or it waits for another person
    130  interrupted; what was started at the server goes on, and the message says how to follow and stop it
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it logs stands in the error, too
    try:
        from dataops_client.cli.app import run
    except KeyboardInterrupt:
        print("dataops: interrupted; nothing was started", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print(f"dataops: {error.name} is missing: pip install 'dataops-client[cli]'", file=sys.stderr)
        return 2
    return run(arguments)
