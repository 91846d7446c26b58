"""docs/operations.md against the code: every metric stands there with its labels, and alerts name what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from prometheus_client.metrics import MetricWrapperBase

from engine.health.meters import Meters
from engine.health.state import StateCollector
from tests.world import World

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(dataops_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
WRITTEN = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROWS}


def _process_metrics() -> Iterator[tuple[str, set[str]]]:
    for metric in vars(Meters()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            yield _series(family.name, family.type), set(metric._labelnames)


def _series(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def test_every_metric_of_a_process_stands_on_the_page_with_its_labels(world: World) -> None:
    found = dict(_process_metrics())
    for family in StateCollector(world.resources).collect():
        found[_series(family.name, family.type)] = set(family._labelnames)  # type: ignore[attr-defined]

    assert found == WRITTEN


def test_alerts_speak_of_metrics_that_there_are() -> None:
    (text,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE, re.DOTALL)
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    named = {name for rule in rules for name in re.findall(r"dataops_\w+", rule["expr"])}

    assert len(rules) >= 3
    assert named <= WRITTEN.keys()
    for rule in rules:
        for name, label in re.findall(r"(dataops_\w+)\{(\w+)=", rule["expr"]):
            assert label in WRITTEN[name]
