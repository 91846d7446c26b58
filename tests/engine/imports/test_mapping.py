"""What a header and a mapping become; and all that cannot be meant, refused before any row and at once."""

from __future__ import annotations

import time

import pytest
from psycopg import sql

from engine.catalog import Catalog, Entity, Field, ForeignKey, UniqueKey
from engine.errors import DataInvalid
from engine.imports.mapping import Columns, MappedColumn, map_columns
from engine.imports.model import FieldMapping, LetterCase


def field(name: str, base: str = "text", **more) -> Field:
    category = "A" if base.startswith("_") else "S"
    return Field(name, name, base, base, category, more.pop("nullable", True), base, **more)


def unique(*columns: str, **more) -> UniqueKey:
    return UniqueKey("_".join(columns), columns, primary=False, usable=True, **more)


def refers(column: str, table: str, name: str = "", target_column: str = "id") -> ForeignKey:
    return ForeignKey(name or column, (column,), "public", table, (target_column,), "NO ACTION", "NO ACTION")


PEOPLE = Entity(
    "people",
    "public",
    "people",
    (
        field("id", "int8", nullable=False),
        field("email"),
        field("name"),
        field("nick"),
        field("phone"),
        field("token", secret=True),
    ),
    ("id",),
    unique=(unique("id"), unique("email"), unique("token"), unique("phone", partial=True), unique("name", "nick")),
)
FIRMS = Entity(
    "firms", "public", "firms", (field("id", "int8"), field("email"), field("code")), ("id",),
    unique=(unique("id"), unique("email"), unique("code")),
)  # fmt: skip
ORDERS = Entity(
    "orders",
    "public",
    "orders",
    (
        field("id", "int8", nullable=False),
        field("state", nullable=False, default="'NEW'::text"),
        field("title", nullable=False),
        field("note"),
        field("made_on", "date"),
        field("made_at", "timestamp"),
        field("seen_at", "timestamptz"),
        field("opens", "time"),
        field("opens_at", "timetz"),
        field("person", "int8"),
        field("owner", "int8"),
        field("far", "int8"),
        field("pin", secret=True, fill="!"),
        field("sum", "int8", generated=True),
        field("serial", "int8", nullable=False, identity="BY DEFAULT"),
    ),
    ("id",),
    references=(
        refers("person", "people"),
        refers("owner", "people", "owner_1"),
        refers("owner", "firms", "owner_2"),
        refers("far", "elsewhere"),
    ),
)
CATALOG = Catalog([PEOPLE, FIRMS, ORDERS])


def columns(header: str, *mapping: FieldMapping, secrets: bool = False, **more) -> Columns:
    names = tuple(header.split(",")) if header else ()
    return map_columns(names, ORDERS, mapping, may_set_secrets=lambda: secrets, catalog=CATALOG, **more)


def refused(header: str, *mapping: FieldMapping, **more) -> list[tuple[str, str]]:
    """Each fault as its word and what is said of it."""
    with pytest.raises(DataInvalid) as caught:
        columns(header, *mapping, **more)
    faults = [(word, said) for word, _, said in (v.description.partition(": ") for v in caught.value.violations)]
    words = {word for word, _ in faults}
    assert caught.value.reason == (words.pop() if len(words) == 1 else "COLUMNS_REFUSED")
    return faults


def text(value: sql.Composable) -> str:
    return value.as_string(None)


def test_columns_find_their_fields_by_name_and_the_others_get_what_a_new_row_gets():
    found = columns("title,id")

    assert found.mapped == (MappedColumn(1, ORDERS.fields[0]), MappedColumn(0, ORDERS.fields[2]))
    constants = {f.name: text(value) for f, value in found.constants}
    assert constants["state"] == "'NEW'::text"
    assert constants["note"] == "NULL"
    assert constants["pin"] == "'!'::text"
    assert [f.name for f in found.server_assigned] == ["serial"]
    assert (found.fixed, found.missing) == ((), ())
    assert [f.name for f in found.planned[:2]] == ["id", "title"]


def test_a_mapping_renames_leaves_out_and_fixes():
    steps = FieldMapping("title", "Name", trim=True)
    found = columns(
        "Nr,Name,rest", FieldMapping("id", "Nr"), steps, FieldMapping("", "rest"), FieldMapping("state", constant="O'K")
    )

    assert [(m.index, m.field.name, m.steps) for m in found.mapped] == [
        (0, "id", FieldMapping("id", "Nr")),
        (1, "title", steps),
    ]
    assert {f.name: text(value) for f, value in found.constants}["state"] == "'O''K'::text"
    assert [f.name for f in found.fixed] == ["state"]
    assert found.kept == (0, 1, 2), "a column that is left out still stands in the reject file"


def test_a_constant_is_of_the_fields_own_type_and_may_be_a_key():
    found = columns("title", FieldMapping("id", constant="7"), new_rows_only=False, key=("id",))

    assert [(f.name, text(value)) for f, value in found.constants if f in found.fixed] == [("id", "'7'::int8")]


def test_one_column_may_fill_several_fields():
    found = columns("id,title", FieldMapping("title", "title"), FieldMapping("note", "title", trim=True))

    assert [(m.index, m.field.name) for m in found.mapped] == [(0, "id"), (1, "title"), (1, "note")]


def test_a_renamed_column_no_longer_fills_the_field_of_its_own_name():
    found = columns("id,title,note", FieldMapping("note", "title"), FieldMapping("title", "note"))

    assert [(m.index, m.field.name) for m in found.mapped] == [(0, "id"), (2, "title"), (1, "note")]


def test_a_reject_files_own_columns_are_left_out():
    assert columns("id,title,_row,_code,_field,_message").kept == (0, 1)


def test_columns_that_differ_in_case_are_fine_where_the_mapping_names_each():
    assert refused("id,title,note,NOTE", FieldMapping("", "NOTE"))[0][0] == "COLUMN_DUPLICATE"

    found = columns("id,title,note,NOTE", FieldMapping("note", "note"), FieldMapping("", "NOTE"))
    assert [(m.index, m.field.name) for m in found.mapped] == [(0, "id"), (1, "title"), (2, "note")]


@pytest.mark.parametrize(
    ("lookup", "target", "name"), [("email", PEOPLE, "email"), ("id", PEOPLE, "id")]
)  # fmt: skip
def test_a_lookup_reads_the_cell_as_the_targets_unique_field(lookup, target, name):
    found = columns("id,title,who", FieldMapping("person", "who", lookup=lookup))
    mapped = found.mapped[-1]

    assert mapped.lookup is not None
    assert (mapped.field.name, mapped.lookup.target, mapped.lookup.field.name) == ("person", target, name)
    assert mapped.lookup.reference.name == "person"
    assert mapped.read_as is target.field(name)
    assert found.mapped[0].read_as is found.mapped[0].field


def test_of_several_references_the_one_whose_target_fits_is_taken():
    mapped = columns("id,title,who", FieldMapping("owner", "who", lookup="code")).mapped[-1]

    assert mapped.lookup is not None
    assert (mapped.lookup.target.name, mapped.lookup.reference.name) == ("firms", "owner_2")


def test_what_a_new_row_lacks_is_told_where_rows_may_be_old_ones():
    entity = Entity("e", "public", "e", (*ORDERS.fields, field("otp", secret=True, nullable=False)), ("id",))
    found = map_columns(("id",), entity, (), may_set_secrets=lambda: False, new_rows_only=False, key=("id",))

    assert [(m.field.name, m.code) for m in found.missing] == [("title", "COLUMN_MISSING"), ("otp", "SECRET_REQUIRED")]
    with pytest.raises(DataInvalid) as caught:
        map_columns(("id",), entity, (), may_set_secrets=lambda: False)
    assert [v.description.split(":")[0] for v in caught.value.violations] == ["COLUMN_MISSING", "SECRET_REQUIRED"]


def test_a_key_that_nothing_fills_is_refused_where_rows_are_found_by_it():
    assert refused("title", new_rows_only=False, key=("id",)) == [
        ("KEY_MISSING", "missing the column 'id', which tells which row is meant")
    ]
    assert refused("id,title", new_rows_only=False, key=("serial",))[0][0] == "KEY_MISSING"


def test_a_secret_field_is_set_only_by_who_may():
    pin = FieldMapping("pin", "code")
    assert [word for word, _ in refused("id,title,code", pin)] == ["SECRET_FORBIDDEN"]
    assert [word for word, _ in refused("id,title", FieldMapping("pin", constant="x"))] == ["SECRET_FORBIDDEN"]

    assert columns("id,title,code", pin, secrets=True).mapped[-1].field.name == "pin"
    for in_plain in (FieldMapping("pin", constant="x"), FieldMapping("pin", "code", default="x")):
        with pytest.raises(DataInvalid) as caught:  # the mapping is kept, and shown, as it was given
            columns("id,title,code" if in_plain.column else "id,title", in_plain, secrets=True)
        assert (caught.value.reason, "'x'" in str(caught.value)) == ("MAPPING_INVALID", False)


def test_all_that_is_wrong_is_told_at_once():
    faults = refused("id,titel,note,note,sum", FieldMapping("nothing", "id"), FieldMapping("made_on", "absent"))

    assert sorted(word for word, _ in faults) == [
        "COLUMN_DUPLICATE", "COLUMN_DUPLICATE", "COLUMN_MISSING", "COLUMN_MISSING", "COLUMN_UNKNOWN", "COLUMN_UNKNOWN",
        "FIELD_NOT_SETTABLE", "FIELD_UNKNOWN",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "mapping", "word", "said"),
    [
        ("id,title,nothing", (), "COLUMN_UNKNOWN", "no field of orders; a mapping to no field leaves it out"),
        ("id,title,Noet", (), "COLUMN_UNKNOWN", "found the column 'Noet', which is no field of orders; did you mean"),
        ("id,title,note", (FieldMapping("made_on", "nota"),), "COLUMN_UNKNOWN", "lacks; did you mean 'note'?"),
        ("id,title,note", (FieldMapping("noet", "note"),), "FIELD_UNKNOWN", "orders lacks; did you mean 'note'?"),
        ("id,title", (FieldMapping("nothing", constant="x"),), "FIELD_UNKNOWN", "the field 'nothing', which orders"),
        ("id,title,n,m", (FieldMapping("note", "n"), FieldMapping("note", "m")), "COLUMN_DUPLICATE", "found 2"),
        ("id,title,note", (FieldMapping("note", constant="x"),), "COLUMN_DUPLICATE", "found 2 columns or constants"),
        ("id,title,note,n", (FieldMapping("note", "n"),), "COLUMN_DUPLICATE", "for the field 'note', expected one"),
        ("id,title,title", (), "COLUMN_DUPLICATE", "2 times, expected once"),
        ("id,title,n", (FieldMapping("note", "n"), FieldMapping("", "n")), "MAPPING_INVALID", "both leaves out and"),
        ("id,title", (FieldMapping("note"),), "MAPPING_INVALID", "expected a column or else a constant"),
        ("id,title", (FieldMapping("title", "title", constant="x"),), "MAPPING_INVALID", "column or else a constant"),
        ("id,title", (FieldMapping("", constant="x"),), "MAPPING_INVALID", "found a constant for no field"),
        ("id,title,_row", (FieldMapping("note", "_row"),), "MAPPING_INVALID", "a reject file's own column"),
        ("id,title,sum", (), "FIELD_NOT_SETTABLE", "cannot be set; a mapping to no field leaves the column out"),
        ("id,title", (FieldMapping("sum", constant="1"),), "FIELD_NOT_SETTABLE", "generated from other fields"),
        ("x", (FieldMapping("", "x"),), "COLUMN_MISSING", "found no column that fills a field of orders"),
        ("id,title", (FieldMapping("note", constant="x", trim=True),), "MAPPING_INVALID", "found steps for a constant"),
        ("id,title,n", (FieldMapping("note", "n", only_listed_values=True),), "MAPPING_INVALID", "without values"),
        ("id,title,n", (FieldMapping("note", "n", values=(("a", "1"), ("a", "2"))),), "MAPPING_INVALID", "'a' twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(header, mapping, word, said):
    faults = refused(header, *mapping)

    assert any(found == word and said in message for found, message in faults), faults


def test_no_hint_leads_to_a_secret_a_generated_or_a_filled_field():
    for name in ("pni", "PIN", "smu"):
        assert "did you mean" not in refused(f"id,title,{name}")[0][1], name
    assert "'title'" not in refused("id,title,titel")[0][1]
    assert "did you mean" not in refused("id,title,x", FieldMapping("pinn", "x"))[0][1]
    assert "'token'" not in refused("id,title,x", FieldMapping("person", "x", lookup="tokne"))[0][1]


def test_a_file_of_a_thousand_unknown_columns_is_refused_without_looking_for_what_each_meant():
    wide = Entity("w", "public", "w", tuple(field(f"some_field_{n}") for n in range(1_000)), ())
    header = tuple(f"other_field_{n}" for n in range(1_000))

    begun = time.process_time()  # of the processor: the machine may be busy with other things
    with pytest.raises(DataInvalid) as caught:
        map_columns(header, wide, (), may_set_secrets=lambda: False)

    assert time.process_time() - begun < 5
    assert len(caught.value.violations) == 1_000


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (FieldMapping("note", "x", date_pattern="%Y-%m-%d"), "date format for 'note', which is text, expected a date"),
        (FieldMapping("made_on", "x", date_pattern="%d.%m.%Y", time_zone="UTC"), "which is date, expected a type with"),
        (FieldMapping("made_at", "x", date_pattern="%Y-%m-%d", time_zone="UTC"), "which is timestamp, expected a typ"),
        (FieldMapping("seen_at", "x", date_pattern="%Y-%m-%d", time_zone="Berlin"), "time zone 'Berlin', expected an"),
        (FieldMapping("seen_at", "x", date_pattern="%Y-%m-%d", time_zone="../etc/passwd"), "expected an IANA name"),
        (FieldMapping("seen_at", "x", time_zone="UTC"), "found a time zone without a date pattern"),
        (FieldMapping("opens_at", "x", date_pattern="%H:%M", time_zone="Europe/Berlin"), "a time without a date"),
        (FieldMapping("made_on", "x", date_pattern="%Y-%m"), "found no day, which a date has"),
        (FieldMapping("made_on", "x", date_pattern="%H"), "found no day and no month and no year"),
        (FieldMapping("made_on", "x", date_pattern="%Y-%j%d"), "found the day twice"),
        (FieldMapping("made_on", "x", date_pattern="%Y %y-%j"), "found the year twice"),
        (FieldMapping("made_on", "x", date_pattern="%Q"), "found '%Q', expected one of %Y %y %m"),
        (FieldMapping("made_on", "x", date_pattern="%Y-%j%"), "found '%', expected one of"),
        (FieldMapping("made_on", "x", date_pattern="%Y-%j%z"), "expected none since a date has no time zone"),
        (FieldMapping("made_at", "x", date_pattern="%Y-%j %H:%M%z"), "expected none since a timestamp has no time z"),
        (FieldMapping("opens", "x", date_pattern="%Y %H:%M"), "found a year, which a time does not hold"),
        (FieldMapping("opens", "x", date_pattern="%M"), "found no hour, which a time has"),
        (FieldMapping("made_on", "x", date_pattern="%Y-%j %M"), "found a minute without hour"),
        (FieldMapping("opens", "x", date_pattern="%H.%f"), "found a fraction without second"),
        (FieldMapping("opens", "x", date_pattern="%I:%M"), "expected %I and %p together"),
        (FieldMapping("opens", "x", date_pattern="%H:%M %p"), "expected %I and %p together"),
        (FieldMapping("person", "x", lookup="emial"), "people has no such field; did you mean 'email'?"),
        (FieldMapping("person", "x", lookup="nick"), "'nick' is not unique in people; unique there: 'email', 'id'"),
        (FieldMapping("person", "x", lookup="phone"), "'phone' is not unique in people"),
        (FieldMapping("person", "x", lookup="token"), "'token' of people is secret"),
        (FieldMapping("note", "x", lookup="email"), "'note' refers to no other entity by itself"),
        (FieldMapping("far", "x", lookup="email"), "elsewhere cannot be looked into"),
        (FieldMapping("owner", "x", lookup="email"), "'owner' refers to firms and people, and 'email' is unique in"),
        (FieldMapping("person", "x", lookup="email", date_pattern="%Y-%j"), "date format for 'email', which is text"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_refused(steps, said):
    ((word, message),) = refused("id,title,x", steps)

    assert word == "MAPPING_INVALID"
    assert message.startswith(f"mapping of {steps.field!r}: ")
    assert said in message


@pytest.mark.parametrize(
    "steps",
    [
        FieldMapping("id", "x", default="7"),
        FieldMapping("note", "x", trim=True, empty_is_null=True, letter_case=LetterCase.LOWER, values=(("", "a"),)),
        FieldMapping("made_on", "x", date_pattern="%d.%m.%Y %H:%M"),
        FieldMapping("seen_at", "x", date_pattern="%d %b %y", time_zone="Europe/Berlin"),
        FieldMapping("seen_at", "x", date_pattern="%d %b %y %I%p %z", time_zone="Europe/Berlin"),
        FieldMapping("opens_at", "x", date_pattern="%H%z"),
    ],
)
def test_a_step_that_fits_is_taken(steps):
    assert steps in [m.steps for m in columns("title,x" if steps.field == "id" else "id,title,x", steps).mapped]
