"""Who is believed, and what a refusal looks like."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from dataops.v1 import access_pb2

from examples.stack.tokens import AUDIENCE, ISSUER
from server.contract import RPCS
from tests.server.edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "/dataops.v1.AccessService/GetCaller"


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _claims(**more: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "sam", "exp": 4_000_000_000} | more


async def test_a_valid_token_is_its_subject_with_the_roles_granted_here(shared_edge: Edge) -> None:
    answer = access_pb2.GetCallerResponse.FromString(
        await shared_edge.raw(CALLER, metadata=shared_edge.bearer(roles=["admin"], scope="*"))
    )
    assert (answer.principal.subject, list(answer.roles)) == ("sam", ["super_admin"])
    other = access_pb2.GetCallerResponse.FromString(
        await shared_edge.raw(CALLER, metadata=shared_edge.bearer("nora", roles=["super_admin"]))
    )
    assert (other.principal.subject, list(other.roles)) == ("nora", [])  # what the token says of roles is not looked at
    assert other.token_expires_at.seconds > 0


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"lifetime": timedelta(hours=-1)}, "TOKEN_EXPIRED"),
        ({"exp": None}, "TOKEN_INVALID"),
        ({"iss": "https://other.example.org"}, "TOKEN_INVALID"),
        ({"iss": None}, "TOKEN_INVALID"),
        ({"aud": "somebody-else"}, "TOKEN_INVALID"),
        ({"aud": None}, "TOKEN_INVALID"),
        ({"sub": None}, "TOKEN_INVALID"),
        ({"sub": ""}, "TOKEN_INVALID"),
        ({"nbf": 4_000_000_000}, "TOKEN_INVALID"),
    ],
)
async def test_a_token_that_is_not_for_us_or_not_for_now_is_refused(
    shared_edge: Edge, claims: dict[str, Any], reason: str
) -> None:
    refusal = await shared_edge.error(CALLER, metadata=shared_edge.bearer(**claims))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert refusal.domain == "dataops"


async def test_a_token_that_nobody_we_trust_has_signed_is_refused(shared_edge: Edge, tmp_path: Path) -> None:
    jwks = json.loads(shared_edge.tokens.jwks_file.read_text())
    kid = jwks["keys"][0]["kid"]
    public = jwt.PyJWK(jwks["keys"][0]).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stranger = ec.generate_private_key(ec.SECP256R1())
    unsigned = jwt.encode(_claims(), "", algorithm="none", headers={"kid": kid})
    # HMAC keyed with the public key: the classic confusion. PyJWT refuses to make it, so it is made by hand.
    hmac_key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    head, body, _ = jwt.encode(_claims(), "x" * 32, algorithm="HS256", headers={"kid": kid}).split(".")
    signature = jwt.utils.base64url_encode(hmac_key.sign(f"{head}.{body}".encode(), public)).decode()
    for name, token in {
        "alg none": unsigned,
        "HMAC with the public key": f"{head}.{body}.{signature}",
        "another key": jwt.encode(_claims(), stranger, algorithm="ES256", headers={"kid": kid}),
        "an unknown key id": jwt.encode(_claims(), stranger, algorithm="ES256", headers={"kid": "no such"}),
        "cut off": shared_edge.tokens.token("sam")[:-10],
        "no token at all": "garbage",
        "too long": "x" * 9_000,
    }.items():
        try:
            refusal = await shared_edge.error(CALLER, metadata=_bearer(token))
        except AssertionError:
            pytest.fail(name)
        assert refusal.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED), name
        if name != "too long":
            assert refusal.reason == "TOKEN_INVALID", name


async def test_a_missing_doubled_or_otherwise_wrapped_token_is_refused(shared_edge: Edge) -> None:
    token = shared_edge.tokens.token("sam")
    assert (await shared_edge.error(CALLER, metadata=())).reason == "TOKEN_MISSING"
    assert (await shared_edge.error(CALLER, metadata=(*_bearer(token), *_bearer(token)))).reason == "TOKEN_INVALID"
    assert (await shared_edge.error(CALLER, metadata=(("authorization", f"Basic {token}"),))).reason == "TOKEN_INVALID"
    assert (await shared_edge.error(CALLER, metadata=(("authorization", token),))).reason == "TOKEN_INVALID"


async def test_no_rpc_of_the_contract_answers_without_a_token(shared_edge: Edge) -> None:
    for method in RPCS:
        refusal = await shared_edge.error(method, metadata=())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING"), method


async def test_no_rpc_but_get_caller_answers_a_caller_without_a_role(shared_edge: Edge) -> None:
    for method, rpc in RPCS.items():
        if rpc.permission == "authenticated":
            continue
        refusal = await shared_edge.error(method, metadata=shared_edge.bearer("nora"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"), method
        assert refusal.metadata["operation"] == rpc.permission
