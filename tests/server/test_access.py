"""Grants, what they permit, and what the audit log keeps of it all."""

from __future__ import annotations

import uuid

import grpc
from dataops.v1 import access_pb2, audit_pb2, backups_pb2, catalog_pb2

from engine.audit import EventFilter, list_events
from engine.db.models import AuditEventRow, RoleRow
from engine.paging import Paging
from examples.stack.tokens import ISSUER
from tests.server.edge import Edge

ACCESS = "/dataops.v1.AccessService/"
ROLES = ACCESS + "ListRoles"
ENTITIES = "/dataops.v1.CatalogService/ListEntities"
ENTITY = "/dataops.v1.CatalogService/GetEntity"
EVENTS = "/dataops.v1.AuditService/ListAuditEvents"


async def _grant(edge: Edge, subject: str, role: str, request_id: str = "") -> access_pb2.Grant:
    request = access_pb2.GrantRoleRequest(
        request_id=request_id or str(uuid.uuid4()), issuer=ISSUER, subject=subject, role=role, reason="because"
    )
    answer = await edge.raw(ACCESS + "GrantRole", request.SerializeToString())
    return access_pb2.GrantRoleResponse.FromString(answer).grant


def _revocation(grant: access_pb2.Grant) -> bytes:
    return access_pb2.RevokeRoleRequest(grant_id=grant.grant_id).SerializeToString()


def _events(edge: Edge, **wanted: object) -> list[AuditEventRow]:
    with edge.resources.db.transaction() as session:
        return list_events(session, EventFilter(**wanted), Paging(size=1_000)).items  # type: ignore[arg-type]


async def test_a_grant_and_its_revocation_hold_from_the_next_call_on(edge: Edge) -> None:
    alex = edge.bearer("alex")
    assert (await edge.error(ROLES, metadata=alex)).reason == "PERMISSION_MISSING"
    grant = await _grant(edge, "alex", "admin")
    assert await edge.raw(ROLES, metadata=alex)
    await edge.raw(ACCESS + "RevokeRole", _revocation(grant))
    assert (await edge.error(ROLES, metadata=alex)).reason == "PERMISSION_MISSING"


async def test_a_grant_given_twice_is_one_grant(edge: Edge) -> None:
    first = await _grant(edge, "alex", "admin", request_id := str(uuid.uuid4()))
    assert (await _grant(edge, "alex", "admin", request_id)).grant_id == first.grant_id
    assert (await _grant(edge, "alex", "admin")).grant_id == first.grant_id
    again = access_pb2.GrantRoleRequest(request_id=request_id, issuer=ISSUER, subject="bert", role="admin")
    refusal = await edge.error(ACCESS + "GrantRole", again.SerializeToString())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_the_last_super_admin_stays(edge: Edge) -> None:
    listed = access_pb2.ListGrantsResponse.FromString(await edge.raw(ACCESS + "ListGrants"))
    mine = listed.grants[0]
    assert (mine.role, mine.HasField("granted_by")) == ("super_admin", False)
    refusal = await edge.error(ACCESS + "RevokeRole", _revocation(mine))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_SUPER_ADMIN")
    # nor may an end be put to it
    ending = access_pb2.GrantRoleRequest(request_id=str(uuid.uuid4()), issuer=ISSUER, subject="sam", role="super_admin")
    ending.expires_at.FromSeconds(4_000_000_000)
    assert (await edge.error(ACCESS + "GrantRole", ending.SerializeToString())).reason == "LAST_SUPER_ADMIN"
    await _grant(edge, "other", "super_admin")
    await edge.raw(ACCESS + "RevokeRole", _revocation(mine))
    assert (await edge.error(ROLES)).reason == "PERMISSION_MISSING"


async def test_a_grant_ends_when_it_said(edge: Edge) -> None:
    grant = await _grant(edge, "alex", "admin")
    with edge.resources.db.transaction() as session:
        session.connection().exec_driver_sql(
            "UPDATE dataops.grants SET expires_at = now() - interval '1 second' WHERE id = %(id)s",
            {"id": grant.grant_id},
        )
    assert (await edge.error(ROLES, metadata=edge.bearer("alex"))).reason == "PERMISSION_MISSING"


async def test_an_admin_may_not_change_access_nor_restore(edge: Edge) -> None:
    await _grant(edge, "alex", "admin")
    for method in (ACCESS + "GrantRole", "/dataops.v1.RestoreService/CreateRestore"):
        refusal = await edge.error(method, metadata=edge.bearer("alex"))
        assert refusal.reason == "PERMISSION_MISSING", method
    made = backups_pb2.CreateBackupRequest().SerializeToString()
    refusal = await edge.error("/dataops.v1.BackupService/CreateBackup", made, metadata=edge.bearer("alex"))
    assert refusal.reason == "INVALID_REQUEST", "permitted, and without its request_id"


async def test_a_role_for_one_entity_sees_that_entity_only(edge: Edge) -> None:
    with edge.resources.db.transaction() as session:
        now = edge.resources.clock()
        session.add(RoleRow(name="users_reader", permissions=["catalog.read:users"], updated_at=now))
    await _grant(edge, "alex", "users_reader")
    alex = edge.bearer("alex")
    listed = catalog_pb2.ListEntitiesResponse.FromString(await edge.raw(ENTITIES, metadata=alex))
    assert [entity.name for entity in listed.entities] == ["users"]
    request = catalog_pb2.GetEntityRequest(entity="tokens").SerializeToString()
    refusal = await edge.error(ENTITY, request, metadata=alex)
    assert (refusal.reason, refusal.metadata) == (
        "PERMISSION_MISSING",
        {"operation": "catalog.read", "entity": "tokens"},
    )
    assert _events(edge, outcomes=("DENIED",))[0].details["entity"] == "tokens"


async def test_an_entity_shows_its_fields_and_no_default_of_a_secret_one(edge: Edge) -> None:
    request = catalog_pb2.GetEntityRequest(entity="users").SerializeToString()
    entity = catalog_pb2.GetEntityResponse.FromString(await edge.raw(ENTITY, request)).entity
    secret = next(field for field in entity.fields if field.name == "password_hash")
    assert (secret.secret, secret.default_expression) == (True, "")
    assert list(entity.key_fields) == ["id"]
    assert len(entity.schema_fingerprint) == 32
    unknown = catalog_pb2.GetEntityRequest(entity="no_such").SerializeToString()
    assert (await edge.error(ENTITY, unknown)).reason == "ENTITY_UNKNOWN"


async def test_a_change_of_access_leaves_an_intent_and_an_outcome_with_its_context(edge: Edge) -> None:
    await _grant(edge, "alex", "admin", request_id := str(uuid.uuid4()))
    outcome, intent = _events(edge, resource_type="grants")[:2]
    assert (intent.kind, outcome.kind, outcome.outcome) == ("INTENT", "OUTCOME", "COMPLETED")
    assert outcome.intent_id == intent.id
    assert intent.details["role"] == "admin"
    assert intent.context["request_id"] == request_id
    assert intent.context["reason"] == "because"
    assert intent.context["rpc"] == ACCESS + "GrantRole"
    assert intent.context["peer"].startswith("127.0.0.1:")
    assert intent.subject == "sam"


async def test_a_read_of_who_may_what_is_kept_and_shown_by_the_log(edge: Edge) -> None:
    await edge.raw(ROLES)
    request = audit_pb2.ListAuditEventsRequest(operation="access.read").SerializeToString()
    (event,) = audit_pb2.ListAuditEventsResponse.FromString(await edge.raw(EVENTS, request)).events
    assert event.outcome == audit_pb2.AUDIT_OUTCOME_SUCCEEDED
    assert (event.rpc, event.context.principal.subject) == (ROLES, "sam")


async def test_denials_are_kept_ten_at_once_per_source_and_the_rest_counted(edge: Edge) -> None:
    for _ in range(15):
        await edge.error(ROLES, metadata=edge.bearer("nora"))
    for _ in range(15):
        await edge.error(ROLES, metadata=())
    denied = _events(edge, outcomes=("DENIED",))
    nora = [event for event in denied if event.subject == "nora"]
    nobody = [event for event in denied if event.principal_id is None]
    assert (len(nora), {event.outcome for event in nora}) == (10, {"PERMISSION_MISSING"})
    assert (len(nobody), {event.outcome for event in nobody}) == (10, {"TOKEN_MISSING"})
    assert nora[0].operation == "access.read"


async def test_a_page_token_is_good_for_its_own_caller_and_filter_alone(edge: Edge) -> None:
    for subject in ("a", "b", "c"):
        await _grant(edge, subject, "admin")
    await _grant(edge, "other", "super_admin")

    def asked(**fields: object) -> bytes:
        return access_pb2.ListGrantsRequest(**fields).SerializeToString()  # type: ignore[arg-type]

    method, seen, token = ACCESS + "ListGrants", [], ""
    while True:
        answer = await edge.raw(method, asked(page_size=2, page_token=token))
        page = access_pb2.ListGrantsResponse.FromString(answer)
        seen += [grant.principal.subject for grant in page.grants]
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert seen == ["other", "c", "b", "a", "sam"]
    for changed, metadata in (
        (asked(page_token=token), edge.bearer("other")),
        (asked(page_token=token, role="admin"), edge.bearer()),
        (asked(page_token=("B" if token[0] == "A" else "A") + token[1:]), edge.bearer()),
        (asked(page_token="é"), edge.bearer()),
    ):
        assert (await edge.error(method, changed, metadata=metadata)).reason == "PAGE_TOKEN_INVALID"


async def test_a_role_or_grant_that_does_not_exist_is_not_found(edge: Edge) -> None:
    request = access_pb2.GrantRoleRequest(
        request_id=str(uuid.uuid4()), issuer=ISSUER, subject="alex", role="no_such_role"
    )
    assert (await edge.error(ACCESS + "GrantRole", request.SerializeToString())).reason == "ROLE_UNKNOWN"
    gone = access_pb2.RevokeRoleRequest(grant_id=str(uuid.uuid4())).SerializeToString()
    assert (await edge.error(ACCESS + "RevokeRole", gone)).reason == "GRANT_UNKNOWN"
