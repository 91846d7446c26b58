"""The `dataops` command.

What a command found goes to standard output; progress, questions and errors to standard error, so that the
output can be piped. Progress is live bars on a terminal and plain lines elsewhere; tables are tab-separated
lines when piped. `--json` prints one JSON document instead (a watch: one line for each event). Every command
that does not write a file also takes it as `-o json`; `dataops export` alone does write one, so that there
`-o FILE` names it.

Exit codes:
    0    done
    1    failed: the job failed, bytes did not arrive, a defect of the server
    2    wrong usage: an unknown option, no such file, no server configured
    3    not authenticated, or not permitted
    4    no such entity, import, export or job
    5    refused: the request, the file or the state does not allow it
    6    the server cannot be reached or is busy
    8    done, but rows of the file were refused (only with --strict)
    9    planned, not applied: nothing was changed (import without --yes where nobody can be asked)
    130  interrupted; what was started at the server goes on
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
