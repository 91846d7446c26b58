"""The demo's story, small, on a stack of the tests."""

from pathlib import Path

import pytest

from examples.stack.demo import Demo, DemoFailed, Sizes
from examples.stack.narrator import Narrator
from examples.stack.stack import Stack
from examples.stack.way_back import NotEqual, WayBack

_SIZES = Sizes(before=1_000, rows=4_000, bad=40, known=100)


@pytest.fixture(scope="module")
def told(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo that has been told to its end, for the tests to look at what it left."""
    with stack.client("admin") as client:
        demo = Demo(tmp_path_factory.mktemp("demo"), client, _SIZES, Narrator())
        demo.run()
    return demo


def test_the_demo_takes_a_file_in_and_out_again(told: Demo) -> None:
    lines = (told.folder / "exported.csv").read_text().splitlines()
    assert len(lines) == 1 + 1_000 + 4_000 - 40 - 99


def test_the_demo_fails_if_one_character_of_the_export_differs(told: Demo, tmp_path: Path) -> None:
    written = told.make_file()
    text = (told.folder / "exported.csv").read_text()
    changed = tmp_path / "changed.csv"
    changed.write_text(text.replace("DRIVER", "DRIVeR", 1))
    with pytest.raises(DemoFailed, match="DRIVeR"):
        told.compare(written, changed)
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DemoFailed, match="found None"):
        told.compare(written, fewer)
    told.compare(written, told.folder / "exported.csv")


def test_the_way_back_ends_where_it_began(stack: Stack) -> None:
    with stack.client() as client:
        story = WayBack(stack.platform_dsn, client, Narrator())
        before = story.fingerprints()
        done = story.run()
        assert story.fingerprints() == before
        assert done.pre_restore_backup_id

        story.damage()
        with pytest.raises(NotEqual, match="is not what it was"):
            story.compare(before)
        story.confirm(story.plan(done.backup_id))  # other tests use this stack too
