"""Where the server is and who is calling: from options, `DATAOPS_*` variables or the file of `make up`.

What stands on the command line wins over every variable: `--stack` over those that name the server, its authority and
the token, `--role` over those that name a token. Among equals, what names one thing wins over the stack's file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataops_client.client import DataOps
    from dataops_client.resume import UploadMemory


class SettingsError(Exception):
    """The command cannot know where or as whom to call."""


@dataclass(frozen=True)
class Settings:
    """What stands on the command line or in the environment; empty means not given."""

    address: str = ""
    ca_file: Path | None = None
    token: str = ""
    token_file: Path | None = None
    stack: Path | None = None
    role: str = "admin"
    server_name: str = ""

    def ranked(self, said: Set[str]) -> Settings:
        """These settings without what an option overrules; `said` names the fields that stand on the command line.

        Raises:
            SettingsError: `--role` without a stack, or beside another token.
        """
        found = self
        if "stack" in said:
            found = replace(
                found,
                token="",
                address=found.address if "address" in said else "",
                ca_file=found.ca_file if "ca_file" in said else None,
                token_file=found.token_file if "token_file" in said else None,
            )
        if "role" in said:
            if found.stack is None:
                raise SettingsError("--role chooses a token of a stack: give --stack build/stack.json or DATAOPS_STACK")
            if "token_file" in said:
                raise SettingsError("--role and --token-file: found both, expected one of them")
            found = replace(found, token="", token_file=None)
        return found

    def connect(self) -> DataOps:
        """A client of the configured server.

        Raises:
            SettingsError: the address or the token is missing or cannot be read.
        """
        from dataops_client.channel import Token, TokenFile
        from dataops_client.client import DataOps

        address, ca_file = self.server(), self.ca_file
        token: Token | None = TokenFile(self.token_file) if self.token_file else self.token
        if self.stack is not None:
            running = self._running_stack(self.stack)
            ca_file = ca_file or Path(str(running["ca_file"]))
            token = token or self._token_of(running)
        if not address:
            raise SettingsError("no server: give --address or DATAOPS_ADDRESS, or --stack build/stack.json")
        if not token:
            raise SettingsError("no token: set DATAOPS_TOKEN or DATAOPS_TOKEN_FILE, or give --token-file")
        for file in (ca_file, self.token_file):
            if file is not None and not os.access(file, os.R_OK):
                raise SettingsError(f"cannot read {file}")
        return DataOps.connect(
            address, ca_file=ca_file, token=token, server_name=self.server_name or None, client_name="dataops-cli"
        )

    def server(self) -> str:
        """The server's address; empty if none is configured."""
        if self.address or self.stack is None:
            return self.address
        return str(self._running_stack(self.stack)["address"])

    def memory(self) -> UploadMemory:
        """Where interrupted uploads to this server are remembered."""
        from dataops_client.resume import UploadMemory, state_folder

        return UploadMemory(state_folder(), self.server())

    def _running_stack(self, path: Path) -> dict[str, object]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read {path}: is `make up` running?") from error
        except ValueError as error:
            raise SettingsError(f"{path} is not JSON: {error}") from error
        if not isinstance(found, dict) or not {"address", "ca_file", "tokens"} <= found.keys():
            raise SettingsError(f"{path} is not the file that `make up` writes")
        return found

    def _token_of(self, running: dict[str, object]) -> str:
        tokens = running["tokens"]
        if not isinstance(tokens, dict) or self.role not in tokens:
            known = ", ".join(sorted(tokens)) if isinstance(tokens, dict) else "none"
            raise SettingsError(f"{self.stack} has no token for role {self.role}, it has {known}")
        return str(tokens[self.role])
