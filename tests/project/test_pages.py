"""The pages: what they link to is there, and what they give to be run is at least what its language understands."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
NAMES = sorted(str(page.relative_to(ROOT)) for page in PAGES)

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors(page: Path) -> set[str]:
    """Those of its headings."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [block for word, block in BLOCK.findall(text) if word == language]


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading_in_it(name: str) -> None:
    page = ROOT / name
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), f"{name}: there is no {target}"
        if anchor:
            assert anchor in anchors(found), f"{name}: {target} has no heading #{anchor}"


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_shell_or_python_is_that(name: str) -> None:
    for block in blocks(name, "sh"):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"
        for code in re.findall(r"\.py <<'END'\n(.*?)^END$", block, re.MULTILINE | re.DOTALL):
            ast.parse(code)
    for block in blocks(name, "python"):
        ast.parse(block)
