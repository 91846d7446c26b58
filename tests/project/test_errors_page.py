"""docs/errors.md against the code: every reason listed, none invented, each with the code it is sent with."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from engine import errors

ROOT = Path(__file__).resolve().parents[2]
WORD = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
LINE = re.compile(r"^\| `([A-Z0-9_]+)` \| ([A-Z_, ]+) \|")
ELSEWHERE = ""
HOLDERS = {"reason", "reasons", "_CONFLICTS", "_REFUSED"}
"""Variables whose words become a reason where it is not written at the error itself."""


def _trees() -> Iterator[ast.AST]:
    for top in ("engine", "server", "workers"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def _words(node: ast.AST) -> Iterator[str]:
    """Texts in `node` that look like a reason; those it is only looked up by are left out."""
    skipped = {id(key) for found in ast.walk(node) if isinstance(found, ast.Dict) for key in found.keys if key}
    skipped |= {id(found.slice) for found in ast.walk(node) if isinstance(found, ast.Subscript)}
    for found in ast.walk(node):
        if id(found) in skipped or not isinstance(found, ast.Constant) or not isinstance(found.value, str):
            continue
        if WORD.fullmatch(found.value):
            yield found.value


def _name(node: ast.expr) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def _assigned(node: ast.Assign) -> ast.AST | None:
    """The value of a holder, alone or first of a tuple."""
    target = node.targets[0]
    if _name(target) in HOLDERS:
        return node.value
    if isinstance(target, ast.Tuple) and _name(target.elts[0]) in HOLDERS and isinstance(node.value, ast.Tuple):
        return node.value.elts[0]
    return None


def reasons_in_code() -> dict[str, set[str]]:
    """Reason → the codes it is raised with; ELSEWHERE among them where the class is not told beside the word."""
    found: dict[str, set[str]] = defaultdict(set)
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                kind = getattr(getattr(errors, _name(node.func), None), "kind", None)
                for keyword in (k for k in node.keywords if k.arg == "reason"):
                    for word in _words(keyword.value):
                        found[word] |= {kind.name} if isinstance(kind, errors.ErrorKind) else {ELSEWHERE}
                # engine.imports.found collects its words before it raises
                if _name(node.func) == "add" and len(node.args) == 3:
                    for word in _words(node.args[0]):
                        found[word] |= {errors.DataInvalid.kind.name}
            elif isinstance(node, ast.Assign) and (value := _assigned(node)) is not None:
                for word in _words(value):
                    found[word] |= {ELSEWHERE}
    return found


def reasons_on_page() -> dict[str, set[str]]:
    """Reason → the codes that docs/errors.md gives it."""
    lines = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines()
    matches = [match for line in lines if (match := LINE.match(line))]
    names = [match[1] for match in matches]
    assert len(names) == len(set(names)), "a reason is listed twice"
    return {match[1]: set(match[2].split(", ")) for match in matches}


def test_every_reason_of_the_code_is_on_the_page_and_the_other_way_round() -> None:
    code, page = set(reasons_in_code()), set(reasons_on_page())
    assert sorted(code - page) == [], "add these to docs/errors.md"
    assert sorted(page - code) == [], "docs/errors.md lists what the code does not use"


def test_every_reason_is_listed_with_the_codes_it_is_sent_with() -> None:
    page = reasons_on_page()
    kinds = {kind.name for kind in errors.ErrorKind}
    for reason, listed in page.items():
        assert listed <= kinds, reason
    for reason, sent in reasons_in_code().items():
        assert sent - {ELSEWHERE} <= page[reason], reason
        if ELSEWHERE not in sent:
            assert page[reason] <= sent, reason


def test_every_error_that_is_raised_has_a_reason() -> None:
    """A class of the tree called without one would answer INTERNAL, which is a defect's own."""
    own = ("DataOpsError", "InternalError")
    names = {name for name, value in vars(errors).items() if isinstance(value, type) and name not in own}
    names = {name for name in names if issubclass(getattr(errors, name), errors.DataOpsError)}
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in names:
                given = len(node.args) > 1 or any(k.arg in ("reason", None) for k in node.keywords)
                assert given, ast.unparse(node)
