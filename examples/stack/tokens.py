"""A token issuer for the local stack: what an identity provider is to an installation."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://issuer.example.org/local-stack"
AUDIENCE = "dataops"
_DAY = timedelta(days=1)


class TokenIssuer:
    """Signs ES256 tokens; the key lives in memory only, ``jwks_file`` holds its public half."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = secrets.token_hex(8)
        self.jwks_file = folder / "jwks.json"
        public: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        public |= {"kid": self._key_id, "alg": "ES256", "use": "sig"}
        self.jwks_file.write_text(json.dumps({"keys": [public]}))

    def token(self, subject: str, *, lifetime: timedelta = _DAY, **claims: object) -> str:
        """A token for ``subject``; ``claims`` add to or replace the usual ones (None leaves one out)."""
        now = datetime.now(UTC)
        payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + lifetime, **claims}
        kept = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(kept, self._key, algorithm="ES256", headers={"kid": self._key_id})
