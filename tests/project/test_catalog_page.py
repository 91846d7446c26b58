"""docs/catalog.md: its example is a catalog file, its words are the code's, the names it calls secret are taken so."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

from engine.catalog.introspect import read_tables
from engine.catalog.refine import CatalogFile, EntityRule, ExcludeRule, GroupRule, refine
from engine.db.platform import Platform

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")


def test_the_example_is_a_catalog_file_that_uses_every_word():
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    found = CatalogFile(**tomllib.loads(example))
    words = {*EntityRule.model_fields, *ExcludeRule.model_fields, *GroupRule.model_fields}

    assert {name for rule in found.entities.values() for name in rule.model_fields_set} == set(EntityRule.model_fields)
    assert {name for name in words if not re.search(rf"`[^`]*\b{name}\b[^`]*`|\b{name} = ", PAGE)} == set()


def test_names_that_are_said_to_look_like_a_credential_do(empty_dsn):
    (said,) = re.findall(r"A name looks like a credential when it holds (.*?)\n\n", PAGE, re.DOTALL)
    words = re.findall(r"`(\w+)`", said)
    with Platform(empty_dsn).connect("test", autocommit=True) as connection:
        connection.execute("CREATE TABLE public.t (v text)")
        (entity,), _ = read_tables(connection, ["public"])
    (field,) = entity.fields
    names = [
        *(f"his_{w}".upper() for w in words),
        *words,
        "name",
        "pinned",
        "salted",
        "desalt",
        "token_count",
        "passing",
    ]
    entity = replace(entity, fields=tuple(replace(field, name=n, column=n) for n in names))

    ((refined,), _) = refine([entity], CatalogFile())
    assert len(words) == 19
    assert [f.name for f in refined.fields if not f.secret] == names[-6:]
