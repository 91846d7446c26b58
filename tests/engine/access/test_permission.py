"""What a permission's text covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.access import Caller
from engine.access.permission import Permission, permitted
from engine.access.roles import ADMIN, BUILT_IN
from engine.errors import InvalidRequest, PermissionDenied
from engine.ids import new_id


@pytest.mark.parametrize(
    ("permission", "asked", "want"),
    [
        ("*", ("restores.create", "users", "REPLACE"), True),
        ("imports.create", ("imports.create", None, None), True),
        ("imports.create", ("imports.create", "users", "REPLACE"), True),
        ("imports.create", ("imports.apply", None, None), False),
        ("imports.*", ("imports.apply", "users", None), True),
        ("imports.*", ("importsx.apply", None, None), False),
        ("imports.create:users", ("imports.create", "users", "ADDITIVE"), True),
        ("imports.create:users", ("imports.create", "tokens", None), False),
        ("imports.create:users", ("imports.create", None, None), True),  # on some entity: the call may go on
        ("imports.create:users:ADDITIVE", ("imports.create", "users", "ADDITIVE"), True),
        ("imports.create:users:ADDITIVE", ("imports.create", "users", "REPLACE"), False),
        ("imports.create:*:ADDITIVE", ("imports.create", "tokens", "ADDITIVE"), True),
        ("imports.create:*:ADDITIVE", ("imports.create", "tokens", "UPSERT"), False),
        ("*:users", ("access.change", None, None), False),  # on no entity: only who may it on all may it
        ("access.*:*:ADDITIVE", ("access.change", None, None), False),
        ("audit.read:users", ("audit.read", None, None), False),
        ("uploads.*:users", ("uploads.manage", None, None), False),
        ("uploads.*:users", ("uploads.create", None, None), True),  # one's own
        ("*:*", ("access.change", None, None), True),
        ("exports.create:a:b:*", ("exports.create", "a:b", None), True),  # an entity's name may hold a colon
    ],
)
def test_a_permission_covers_its_operation_entity_and_mode(
    permission: str, asked: tuple[str, str | None, str | None], want: bool
) -> None:
    assert permitted([permission], *asked) is want


@pytest.mark.parametrize(
    "text", ["", "imports", "imports.", ".create", "IMPORTS.create", "*.create", "imports.create.x"]
)
def test_a_text_that_is_no_permission_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="PERMISSION_INVALID"):
        Permission.parse(text)


@given(st.text(min_size=1).filter(lambda name: name != "*"), st.sampled_from(["*", "ADDITIVE", "REPLACE"]))
def test_any_entity_name_survives_the_text_form(entity: str, mode: str) -> None:
    permission = Permission("imports.create", entity, mode)
    assert Permission.parse(str(permission)) == permission


def test_the_admin_role_lacks_restores_changes_of_access_and_secrets() -> None:
    admin = next(role for role in BUILT_IN if role.name == ADMIN)
    for operation in ("restores.create", "restores.read", "access.write", "secrets.set"):
        assert not permitted(admin.permissions, operation), operation
    for operation in ("imports.apply", "exports.download", "access.read", "audit.read", "jobs.cancel"):
        assert permitted(admin.permissions, operation), operation


def test_a_refusal_names_what_was_asked_for() -> None:
    caller = Caller(new_id(), "iss", "sub", "USER", (), ("imports.create:users:ADDITIVE",))
    caller.require("imports.create", "users", "ADDITIVE")
    with pytest.raises(PermissionDenied) as caught:
        caller.require("imports.create", "users", "REPLACE")
    assert caught.value.metadata == {"operation": "imports.create", "entity": "users", "mode": "REPLACE"}
