"""The chart as Helm renders it, and what its manifests hold."""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm_python
import yaml

from dafh.settings import CHECKOUT

CHART = CHECKOUT / "k8s" / "chart" / "dafh"
RELEASE, NAMESPACE = "rel", "imaging"
#: What every name of the release begins with.
FULL_NAME = f"{RELEASE}-dafh"
CI = tuple(sorted(path.name.removesuffix("-values.yaml") for path in CHART.glob("ci/*.yaml")))

#: Any part of a manifest.
Part = dict[str, Any]

#: Stands in for the chart of Milvus, which cannot be fetched here: it shows the values it is given.
_MILVUS = {
    "Chart.yaml": "apiVersion: v2\nname: milvus\nversion: 5.0.0\n",
    "templates/values.yaml": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: milvus-values}\n"
        "data:\n  values: {{ .Values | toJson | quote }}\n"
    ),
}


@functools.cache
def with_dependency() -> Path:
    """Return a copy of the chart that has its dependency."""
    folder = Path(tempfile.mkdtemp(prefix="dafh-chart-")) / CHART.name
    shutil.copytree(CHART, folder)
    for name, text in _MILVUS.items():
        path = folder / "charts" / "milvus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@functools.cache
def _loaded() -> helm_python.Chart:
    return helm_python.Chart.load(with_dependency())


def values(name: str) -> Part:
    """Return one of the chart's own examples, to be changed at will."""
    loaded: Part = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return loaded


def render_texts(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what each template becomes; empty ones left out."""
    rendered = _loaded().render(dict(given), name=RELEASE, namespace=NAMESPACE)
    return {
        Path(name).name: text
        for name, text in rendered.items()
        if name.startswith("dafh/templates/") and text.strip()
    }


@functools.cache
def _texts_of(name: str) -> dict[str, str]:
    return render_texts(values(name))


def texts_of(name: str) -> dict[str, str]:
    """Return what each template becomes with an example."""
    return dict(_texts_of(name))


@dataclass(frozen=True)
class Workload:
    """Pods of one kind, and what makes them."""

    name: str
    kind: str
    #: The pods' labels.
    labels: dict[str, str]
    #: The pods' specification.
    pod: Part
    #: That of the deployment or the job.
    spec: Part

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[Part]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def main(self) -> Part:
        container: Part = self.pod["containers"][0]
        return container

    @property
    def environment(self) -> dict[str, str]:
        """Variables with a value."""
        return {one["name"]: one["value"] for one in self.main.get("env", []) if "value" in one}

    @property
    def variables(self) -> set[str]:
        return {one["name"] for one in self.main.get("env", [])}

    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"]
            for container in self.pod["containers"]
            for port in container.get("ports", [])
        }


@dataclass
class Manifests:
    """All objects of a release."""

    objects: list[Part] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Part]:
        return [one for one in self.objects if one["kind"] in kinds]

    def one(self, kind: str, ending: str) -> Part:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"].endswith(ending)]
        return found

    def names(self, *kinds: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.of(*kinds)}

    def workloads(self) -> Iterator[Workload]:
        for one in self.of("Deployment", "Job", "CronJob"):
            spec = one["spec"]
            if one["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            template = spec["template"]
            yield Workload(
                one["metadata"]["name"],
                one["kind"],
                template["metadata"]["labels"],
                template["spec"],
                spec,
            )

    def workload(self, component: str) -> Workload:
        return next(one for one in self.workloads() if one.component == component)

    def copy(self) -> Manifests:
        return Manifests(copy.deepcopy(self.objects))


def parse(texts: Mapping[str, str]) -> Manifests:
    """Read what templates have become."""
    return Manifests(
        [
            one
            for name, text in texts.items()
            if name.endswith(".yaml")
            for one in yaml.safe_load_all(text)
            if one
        ]
    )


@functools.cache
def _manifests_of(name: str) -> Manifests:
    return parse(_texts_of(name))


def manifests_of(name: str) -> Manifests:
    """Return the objects of an example, to be changed at will."""
    return _manifests_of(name).copy()


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Say whether labels have all that a selector asks for."""
    return selector.items() <= labels.items()
