"""Where the server is and who is calling: from options, `DATAOPS_*` variables or the file of `make up`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataops_client.client import DataOps


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

    def connect(self) -> DataOps:
        """A client of the configured server.

        Raises:
            SettingsError: the address or the token is missing or cannot be read.
        """
        from dataops_client.channel import Token, TokenFile
        from dataops_client.client import DataOps

        address, ca_file = self.address, self.ca_file
        token: Token | None = TokenFile(self.token_file) if self.token_file else self.token
        if self.stack is not None:
            running = self._running_stack(self.stack)
            address = address or str(running["address"])
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
