"""Believing a token: signature by a key of the configured set, issuer, audience, time and subject. Never its roles."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import structlog

from engine.errors import InvalidRequest, Unauthenticated

log = structlog.get_logger(__name__)

ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""Asymmetric only, by the key's own type: `none` and HMAC over a public key are not among them."""

LEEWAY_SECONDS = 10
MIN_RSA_BITS = 2_048
LOOK_AGAIN_SECONDS = 1.0
"""How often an unknown key id may make us read the file again: otherwise anybody could keep us reading it."""

MAX_KEY_SET = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What a believed token says."""

    issuer: str
    subject: str
    display_name: str
    expires_at: datetime


class KeySet:
    """The public keys of a JWKS file, read again when the file changes or names a key id we do not know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._read_at = 0.0
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read(required=True)

    def key(self, kid: str | None) -> jwt.PyJWK | None:
        """The key called `kid`; without a name, the only key there is."""
        with self._lock:
            if self._stat() != self._seen:
                self._read()
            found = self._find(kid)
            if found is None and time.monotonic() - self._read_at > LOOK_AGAIN_SECONDS:
                self._read()
                found = self._find(kid)
            return found

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _stat(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return self._seen  # in the middle of being replaced: what we have stays good
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self, *, required: bool = False) -> None:
        self._read_at = time.monotonic()
        seen = self._stat()
        try:
            keys = _parse(self._path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            if required:
                raise InvalidRequest(
                    "jwks_file: expected a JSON Web Key Set with asymmetric signing keys", reason="CONFIG_INVALID"
                ) from None
            log.error("tokens.key_set_unreadable", error=type(error).__name__)  # noqa: TRY400 the text may hold keys
            self._seen = seen
            return
        self._keys, self._seen = keys, seen
        log.info("tokens.key_set_read", keys=len(keys))


class TokenVerifier:
    """Verifies tokens of one issuer for one audience. Takes a file and processor time: not for the event loop."""

    def __init__(self, keys: KeySet, issuer: str, audience: str) -> None:
        if not issuer or not audience:
            raise InvalidRequest("jwt_issuer and jwt_audience: expected both, found one empty", reason="CONFIG_INVALID")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def verify(self, token: str) -> Identity:
        """Who the token stands for.

        Raises:
            Unauthenticated: TOKEN_EXPIRED or TOKEN_INVALID, saying which test it failed.
        """
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise _invalid("it is no signed JSON Web Token") from None
        key = self._keys.key(kid if isinstance(kid, str) else None)
        if key is None:
            raise _invalid("its key id is not in the key set")
        return self._identity(self._claims(token, key))

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=_algorithms(key),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                # Without `require` a token that has no `exp` at all is accepted.
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("token: has expired", reason="TOKEN_EXPIRED") from None
        except jwt.PyJWTError as error:
            raise _invalid(_FAILED.get(type(error), "its signature or claims do not hold")) from None
        except (ValueError, TypeError):
            raise _invalid("its signature or claims do not hold") from None
        return claims

    def _identity(self, claims: dict[str, Any]) -> Identity:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= 500 or "\0" in subject:
            raise _invalid("its subject is no text of 1 to 500 characters")
        try:
            expires_at = datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (ValueError, OverflowError, OSError):
            raise _invalid("its expiry is no time") from None
        name = claims.get("name")
        return Identity(
            self._issuer, subject, name[:200].replace("\0", "") if isinstance(name, str) else "", expires_at
        )


_FAILED: dict[type[Exception], str] = {
    jwt.InvalidIssuerError: "its issuer is not the one this server trusts",
    jwt.InvalidAudienceError: "its audience is not this server",
    jwt.InvalidAlgorithmError: "its algorithm is not one of the key's asymmetric ones",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidSignatureError: "its signature does not hold",
    jwt.MissingRequiredClaimError: "it lacks one of exp, iss, aud, sub",
}


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(f"token: {why}", reason="TOKEN_INVALID")


def _algorithms(key: jwt.PyJWK) -> list[str]:
    """What the key may have signed with: its own `alg` where it names one, else those of its type."""
    allowed = ALGORITHMS[key.key_type or ""]
    named = key._jwk_data.get("alg")
    return [name for name in allowed if named in (None, name)]


def _parse(raw: bytes) -> dict[str, jwt.PyJWK]:
    if len(raw) > MAX_KEY_SET:
        raise ValueError("key set too large")
    keys: dict[str, jwt.PyJWK] = {}
    for data in json.loads(raw)["keys"]:
        if data.get("kty") not in ALGORITHMS or data.get("use", "sig") != "sig":
            continue
        key = jwt.PyJWK(data)
        if getattr(key.key, "key_size", MIN_RSA_BITS) < MIN_RSA_BITS and data["kty"] == "RSA":
            log.warning("tokens.key_too_small", kid=data.get("kid"))
            continue
        keys[str(data.get("kid", ""))] = key
    if not keys:
        raise ValueError("no usable key")
    return keys
