"""Key sets: read, renewed, broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import InvalidRequest, Unauthenticated
from examples.stack.tokens import AUDIENCE, ISSUER, TokenIssuer
from server.tokens import KeySet, TokenVerifier


def test_a_renewed_key_set_is_read_without_a_restart_and_retires_the_old_key(tmp_path: Path) -> None:
    old = TokenIssuer(tmp_path)
    verifier = TokenVerifier(KeySet(old.jwks_file), ISSUER, AUDIENCE)
    assert verifier.verify(old.token("sam")).subject == "sam"
    new = TokenIssuer(tmp_path)  # writes the same file
    written = new.jwks_file.stat().st_mtime_ns
    os.utime(new.jwks_file, ns=(written, written + 10**9))  # else, before Linux 6.13, in the same tick of 4 ms
    assert verifier.verify(new.token("sam")).subject == "sam"
    with pytest.raises(Unauthenticated, match="TOKEN_INVALID"):
        verifier.verify(old.token("sam"))


def test_a_key_set_that_breaks_while_we_run_leaves_the_keys_we_have(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    verifier = TokenVerifier(KeySet(issuer.jwks_file), ISSUER, AUDIENCE)
    issuer.jwks_file.write_text("{")
    assert verifier.verify(issuer.token("sam")).subject == "sam"
    issuer.jwks_file.unlink()
    assert verifier.verify(issuer.token("sam")).subject == "sam"


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}', "[1]"],
)
def test_a_key_set_without_an_asymmetric_key_refuses_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content)
    with pytest.raises(InvalidRequest, match="CONFIG_INVALID"):
        KeySet(path)
