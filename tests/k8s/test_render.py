"""Every example renders, to what Kubernetes takes and to what it did before."""

from __future__ import annotations

import functools
import json
import tomllib
from pathlib import Path

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from dafh.settings import CHECKOUT
from tests.k8s.chart import (
    CHART,
    CI,
    NAMESPACE,
    manifests_of,
    render_texts,
    texts_of,
    values,
    with_dependency,
)
from tests.k8s.golden import FOLDER, golden_texts
from tests.k8s.shapes import SHAPES

#: The oldest that the chart says it supports, one between, the newest that there is a schema of.
VERSIONS = ("1.31", "1.34", "1.37")

# It reads the same megabytes from disk for every object.
utils.schema_contents = functools.cache(utils.schema_contents)


def test_the_five_ways_to_install_it_have_an_example() -> None:
    assert CI == ("air-gapped", "minimal", "openshift", "production", "single-gpu")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("example", CI)
def test_kubernetes_takes_every_object(example: str, version: str) -> None:
    for one in manifests_of(example).objects:
        try:
            told = kubernetes_validate.validate(one, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            jsonschema.validate(one["spec"], SHAPES[f"{one['apiVersion']}/{one['kind']}"])
        else:
            # For a version that it does not know it takes the last one before.
            assert told == version


def test_a_field_that_is_not_there_is_found() -> None:
    service = manifests_of("minimal").one("Service", "-gateway")
    service["spec"]["clusterIp"] = "None"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, VERSIONS[0], strict=True)
    scaled = manifests_of("production").one("ScaledObject", "-triton")
    scaled["spec"]["minReplicas"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaled["spec"], SHAPES["keda.sh/v1alpha1/ScaledObject"])


def test_the_versions_are_those_of_the_chart() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"
    assert kubernetes_validate.latest_version() == f"{VERSIONS[-1]}.0"


def test_chart_and_images_have_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
    image = manifests_of("minimal").workload("gateway").main["image"]
    assert image == f"registry.example/dafh-gateway:{project['version']}"


@pytest.mark.parametrize("example", CI)
def test_helm_lints_it(example: str) -> None:
    for version in VERSIONS:
        told = helm_python.lint(
            with_dependency(), values(example), strict=True, namespace=NAMESPACE,
            kube_version=f"{version}.0",
        )  # fmt: skip
        assert told["errors"] == []


@pytest.mark.parametrize("example", CI)
def test_it_renders_to_what_it_did(example: str) -> None:
    kept = {path.name: path.read_text() for path in (FOLDER / example).iterdir()}
    assert golden_texts(example) == kept, "if so it should be: python -m tests.k8s.golden"


def test_a_packaged_chart_is_whole(tmp_path: Path) -> None:
    packed = Path(helm_python.package(with_dependency(), destination=tmp_path))
    chart = helm_python.Chart.load_archive(packed.read_bytes())
    rendered = chart.render(values("production"), name="rel", namespace=NAMESPACE)
    assert rendered["dafh/templates/monitoring.yaml"] == texts_of("production")["monitoring.yaml"]


def test_alerts_and_dashboard_are_those_of_the_project() -> None:
    manifests, folder = manifests_of("production"), CHECKOUT / "k8s" / "monitoring"
    rules = yaml.safe_load((folder / "alerts.yaml").read_text())
    assert manifests.one("PrometheusRule", "rel-dafh")["spec"] == rules
    board = manifests.one("ConfigMap", "-dashboard")["data"]["dafh.json"]
    assert json.loads(board) == json.loads((folder / "dashboard.json").read_text())
    # Links, and no copies that could grow old.
    assert {path.is_symlink() for path in (CHART / "files").iterdir()} == {True}


def test_no_version_of_the_dependency_looks_tried_and_the_page_says_why() -> None:
    """A lock would name one that nobody here could fetch; a site makes its own."""
    assert not (CHART / "Chart.lock").exists()
    assert not (CHART / "charts").exists()
    page = (CHECKOUT / "docs" / "deploy.md").read_text()
    assert "No `Chart.lock` is kept here" in page
    assert "helm dependency build" in page


def test_the_dependency_gets_its_values() -> None:
    chart = helm_python.Chart.load(with_dependency())
    told = chart.render(values("single-gpu"), name="rel", namespace=NAMESPACE)
    (text,) = (text for name, text in told.items() if "charts/milvus" in name)
    given = json.loads(yaml.safe_load(text)["data"]["values"])
    assert yaml.safe_load(given["extraConfigFiles"]["user.yaml"])["common"]["security"] == {
        "tlsMode": 2,
        "authorizationEnabled": True,
    }
    (certificate,) = (volume["secret"]["secretName"] for volume in given["volumes"])
    made = manifests_of("single-gpu").one("Certificate", "-milvus-server")["spec"]
    assert certificate == made["secretName"]
    assert (
        "https://rel-milvus.imaging.svc:19530".removeprefix("https://").partition(":")[0]
        in (made["dnsNames"])
    )


def test_tritons_are_replaced_for_other_models_and_not_for_another_preferred_one() -> None:
    def rendered(**changed: object) -> str:
        given = values("minimal")
        given["models"] |= changed
        return render_texts(given)["triton-deployment.yaml"]

    assert rendered(version=1) == rendered()
    assert rendered(versions=[1, 2]) != rendered()


def test_notes_say_what_is_open() -> None:
    assert "networkPolicy.milvus names nobody" in texts_of("minimal")["NOTES.txt"]
    assert "networkPolicy.milvus names nobody" not in texts_of("production")["NOTES.txt"]


def test_notes_say_that_an_object_store_wants_its_library() -> None:
    told = "Jobs ask s3://: the image dafh-jobs-s3 must have the library"
    assert told in texts_of("production")["NOTES.txt"]
    assert "Jobs ask" not in texts_of("single-gpu")["NOTES.txt"]
