"""Whether the steps of a mapping fit the field they lead to: judged before any row is read."""

from __future__ import annotations

from engine.catalog import Catalog, Entity, Field, ForeignKey
from engine.imports.dates import DATE_TYPES, ZONED, PatternFault, known_zone, parse_pattern, refuse_misfit
from engine.imports.found import Found, quoted
from engine.imports.model import FieldMapping


def check_steps(steps: FieldMapping, field: Field, found: Found) -> None:
    """Adds MAPPING_INVALID for every step that cannot be taken; `field` is what the text must become a value of."""
    if field.secret and (steps.constant is not None or steps.default is not None or steps.values):
        said = f"mapping of {steps.field!r}: found values for a secret field, which would stand in the import's record"
        found.add("MAPPING_INVALID", steps.field, f"{said}; expected them in the file")
    if steps.constant is not None:
        if _has_steps(steps):
            said = f"mapping of {steps.field!r}: found steps for a constant, expected it as it is to be stored"
            found.add("MAPPING_INVALID", steps.field, said)
        return
    for wrong in (_values(steps), _date(steps, field)):
        if wrong:
            found.add("MAPPING_INVALID", steps.field, f"mapping of {steps.field!r}: {wrong}")


def _has_steps(steps: FieldMapping) -> bool:
    return steps != FieldMapping(steps.field, constant=steps.constant, entity=steps.entity)


def _values(steps: FieldMapping) -> str:
    if steps.only_listed_values and not steps.values:
        return "found only_listed_values without values, expected at least one"
    olds = [old for old, _ in steps.values]
    if len(set(olds)) < len(olds):
        twice = next(old for old in olds if olds.count(old) > 1)
        return f"found the value {quoted(twice)} twice, expected it once"
    return ""


def _date(steps: FieldMapping, field: Field) -> str:
    if not steps.date_pattern:
        return "found a time zone without a date pattern, expected both" if steps.time_zone else ""
    if field.base not in DATE_TYPES:
        return f"found a date format for {field.name!r}, which is {field.storage_type}, expected a date or time"
    try:
        pattern = parse_pattern(steps.date_pattern)
        refuse_misfit(pattern, field.base)
    except PatternFault as fault:
        return f"date pattern {quoted(steps.date_pattern)}: {fault}"
    if not steps.time_zone:
        return ""
    if field.base not in ZONED:
        return f"found a time zone for {field.name!r}, which is {field.storage_type}, expected a type with one"
    if not known_zone(steps.time_zone):
        return f"found the time zone {quoted(steps.time_zone)}, expected an IANA name such as 'Europe/Berlin'"
    if field.base == "timetz" and steps.time_zone != "UTC":
        return f"found the time zone {steps.time_zone!r} for a time without a date, expected UTC, or %z in the pattern"
    return ""


def find_lookup(
    name: str, field: Field, entity: Entity, catalog: Catalog | None, found: Found
) -> tuple[ForeignKey, Entity, Field] | None:
    """The foreign key of `field` whose target has the unique field `name`; adds MAPPING_INVALID if there is none."""
    references = [r for r in entity.references if r.columns == (field.column,)]
    wrong = [] if references else [f"{field.name!r} refers to no other entity by itself"]
    fitting: dict[str, tuple[ForeignKey, Entity, Field]] = {}
    for reference in references:
        target = catalog.of_table(reference.target_schema, reference.target_table) if catalog else None
        other = target.field(name) if target else None
        if target is None or target.refused:
            wrong.append(f"{reference.target_table} cannot be looked into")
        elif other is None or other.secret:
            wrong.append(_not_there(name, target, found))
        elif not any(k.columns == (other.column,) and not k.partial for k in target.unique):
            wrong.append(f"{name!r} is not unique in {target.name}; unique there: {_unique(target)}")
        else:
            fitting.setdefault(target.name, (reference, target, other))
    if len(fitting) > 1:
        wrong = [f"{field.name!r} refers to {' and '.join(sorted(fitting))}, and {name!r} is unique in each"]
    if len(fitting) != 1:
        said = f"mapping of {field.name!r}: found the lookup {quoted(name)}, but {'; '.join(wrong)}"
        found.add("MAPPING_INVALID", field.name, said)
        return None
    return next(iter(fitting.values()))


def _not_there(name: str, target: Entity, found: Found) -> str:
    other = target.field(name)
    if other is not None:
        return f"{name!r} of {target.name} is secret, and lookups would tell what it holds"
    return f"{target.name} has no such field{found.near(name, (f.name for f in target.fields if not f.secret))}"


def _unique(target: Entity) -> str:
    columns = sorted({k.columns[0] for k in target.unique if len(k.columns) == 1 and not k.partial})
    fields = [target.column(column) for column in columns]
    return ", ".join(repr(f.name) for f in fields if not f.secret) or "none"
