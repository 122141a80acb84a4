"""What docs/deploy.md says can be done, can be; its figures follow from measured ones."""

from __future__ import annotations

import json
import math
import re

import pytest
import yaml

from dafh.settings import CHECKOUT

# Imported for the rules that they add to the table.
from tests.k8s import rules_of_pods, rules_of_programs  # noqa: F401
from tests.k8s.chart import NAMESPACE, Part, parse, render_texts, values
from tests.k8s.programs import parse_command
from tests.k8s.rules import breaches
from tests.k8s.test_values import merged

TEXT = (CHECKOUT / "docs" / "deploy.md").read_text()
VALUES = [
    block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "# values" in block
]
MEASURED: Part = json.loads(
    (CHECKOUT / "docs/performance/index/search-standalone-real.json").read_text()
)
#: What the page assumes: room for compaction, and a query node's memory.
ROOM, TWICE, NODE = 1.5, 2, 64 * 2**30


def test_every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> None:
    rules = yaml.safe_load((CHECKOUT / "k8s" / "monitoring" / "alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)) == alerts


@pytest.mark.parametrize("exponent", [6, 7, 8, 9])
def test_the_sizes_follow_from_what_was_measured(exponent: int) -> None:
    ratio = 10**exponent / MEASURED["rows"]
    memory = ratio * MEASURED["memory"]["anonymous"] * ROOM
    scan = ratio * MEASURED["flat"][0]["faiss_p50_ms"]
    lists = MEASURED["ivf"]["nprobe"] / MEASURED["ivf"]["nlist"]
    cells = [
        f"10^{exponent}",
        f"{memory / 1e9:.1f} GB",
        f"{math.ceil(memory / NODE)}",
        f"{ratio * MEASURED['memory']['disk'] * TWICE / 1e9:.1f} GB",
        f"{10**exponent / MEASURED['upsert']['rows_per_second'] / 3600:.1f}",
        f"{scan:.1f} ms",
        "–" if exponent == 6 else f"{scan * lists:.2f} ms",  # noqa: RUF001 - as the page writes it
    ]
    assert f"| {' | '.join(cells)} |" in TEXT


def test_the_gateway_is_sized_by_what_was_measured() -> None:
    kept = json.loads((CHECKOUT / "docs" / "performance" / "gateway.json").read_text())
    costs = {name: one["served"]["cpu_ms_of"]["gateway"] for name, one in kept["queries"].items()}
    text = " ".join(TEXT.split()).replace("×", "*").replace("÷", "/")  # noqa: RUF001 - the page's
    stated = re.search(
        r"about (\d+) ms for a CT of 132 kB, (\d+) for a small picture, (\d+) for a CT in", text
    )
    assert stated
    plain, small, packed = map(float, stated.groups())
    for said, measured in (
        (plain, costs["CT"]),
        (small, costs["128 x 128"]),
        (packed, costs["CT, JPEG 2000"]),
    ):
        # A run differs from the next: what is said is enough, and not far above.
        assert measured <= said <= 1.3 * measured
    (figures,) = re.findall(r"CTs a second are (\d+) \* ([\d.]+) / ([\d.]+) = ([\d.]+)", text)
    rate, seconds, aim, processors = map(float, figures)
    assert seconds * 1000 == plain
    assert round(rate * seconds / aim, 1) == processors


def test_there_are_values_to_try() -> None:
    assert len(VALUES) >= 3


@pytest.mark.parametrize("block", VALUES)
def test_its_values_install(block: str) -> None:
    manifests = parse(render_texts(merged(values("minimal"), yaml.safe_load(block))))
    assert "jobs" in {one.component for one in manifests.workloads()}
    assert breaches(manifests) == {}


def test_its_commands_are_those_that_dafh_has() -> None:
    commands = re.findall(r"^dafh (.*?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
    assert commands
    for command in commands:
        parse_command(command.split())


def test_the_rules_for_the_adapter_are_what_keda_would_ask() -> None:
    (block,) = [
        one for one in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "external" in one
    ]
    rules = yaml.safe_load(block)["rules"]["external"]
    scaled = merged(
        values("minimal"),
        {
            "monitoring": {"serviceMonitor": True, "prometheusUrl": "http://prometheus:9090"},
        },
    )
    asked = _autoscaling(scaled, "keda")
    queries = {
        " ".join(trigger["metadata"]["query"].split())
        for one in asked
        for trigger in one["spec"]["triggers"]
        if "query" in trigger["metadata"]
    }
    metrics = [
        metric["external"]["metric"]
        for one in _autoscaling(scaled, "hpa")
        for metric in one["spec"]["metrics"]
        if metric["type"] == "External"
    ]
    told = {}
    for metric in metrics:
        (query,) = (one["metricsQuery"] for one in rules if one["name"]["as"] == metric["name"])
        # What the adapter puts there: the namespace of who asks, and the labels that it asks for.
        labels = {"namespace": NAMESPACE} | metric["selector"]["matchLabels"]
        matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
        told[metric["name"]] = " ".join(query.replace("<<.LabelMatchers>>", matchers).split())
    assert set(told.values()) == queries
    assert set(told) == {one["name"]["as"] for one in rules}


def _autoscaling(given: Part, by: str) -> list[Part]:
    """Return what counts the replicas of both, some way."""
    change = {name: {"autoscaling": {"by": by}} for name in ("gateway", "triton")}
    texts = render_texts(merged(given, change))
    return [one for one in yaml.safe_load_all(texts["autoscaling.yaml"]) if one]
