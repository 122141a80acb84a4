"""Values that cannot be meant are refused before anything is installed, in words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

from dafh_gateway.settings import GatewaySettings
from tests.k8s.chart import CHART, CI, Part, manifests_of, parse, render_texts, values
from tests.k8s.programs import SETTINGS, variables

SCHEMA: Part = json.loads((CHART / "values.schema.json").read_text())

#: Somebody in a policy; an identity provider.
PEER: Part = {"ipBlock": {"cidr": "192.0.2.10/32"}}
JWT: Part = {
    "url": "https://login.example/keys",
    "issuer": "https://login.example",
    "audience": "dafh",
}
#: Change of the minimal example, and what Helm then says.
REFUSED: dict[str, tuple[Part, tuple[str, ...]]] = {
    "a misspelt key": ({"gateway": {"replcas": 3}}, ("/gateway", "replcas", "not allowed")),
    "a misspelt key at the top": ({"gatway": {}}, ("gatway", "not allowed")),
    "a misspelt setting": (
        {"gateway": {"settings": {"MAX_CALS": 3}}},
        ("MAX_CALS", "must be one of", "MAX_CALLS"),
    ),
    "a setting that the chart makes itself": (
        {"gateway": {"settings": {"LISTEN": "127.0.0.1:1"}}},
        ("LISTEN", "must be one of"),
    ),
    "a misspelt key of a job": (
        {"jobs": {"a": {"comand": "index"}}},
        ("/jobs/a", "comand", "not allowed"),
    ),
    "a wrong type": (
        {"gateway": {"replicas": "three"}},
        ("/gateway/replicas", "got string, want integer"),
    ),
    "a quantity that is none": ({"triton": {"memory": "8 GB"}}, ("/triton/memory", "pattern")),
    "a backend that is none": (
        {"triton": {"backend": "cuda"}},
        ("/triton/backend", "must be one of 'tensorrt', 'onnx'"),
    ),
    "a digest that is none": (
        {"images": {"gateway": {"digest": "abc"}}},
        ("/images/gateway/digest", "sha256"),
    ),
    "plaintext to Milvus": (
        {"index": {"uri": "http://milvus.example:19530"}},
        ("/index/uri", "https://"),
    ),
    "two Milvus": (
        {"milvus": {"enabled": True}},
        ("/index/uri", "empty, since milvus.enabled installs a Milvus"),
    ),
    "no Milvus": ({"index": {"uri": ""}}, ("/index/uri", "or set milvus.enabled to true")),
    "a Milvus of ours, looked for elsewhere": (
        {"milvus": {"enabled": True}, "index": {"uri": ""}, "networkPolicy": {"milvus": [PEER]}},
        ("/networkPolicy/milvus", "let through by its labels"),
    ),
    "callers whom nobody can tell apart": (
        {"identity": {"accounts": {"secretName": ""}}},
        ("/identity/accounts/secretName", "`dafh token`", "or set identity.jwt.url"),
    ),
    "tokens that are not checked": (
        {"identity": {"jwt": {"url": "https://login.example/keys"}}},
        ("/identity/jwt/issuer", "/identity/jwt/audience", "a token is checked for its issuer"),
    ),
    "tokens that are not checked, with keys of a Secret": (
        {"identity": {"jwt": {"secretName": "keys"}}},
        ("/identity/jwt/issuer", "/identity/jwt/audience", "since identity.jwt.secretName is"),
    ),
    "keys of callers from two places": (
        {"identity": {"jwt": JWT | {"secretName": "y"}}},
        ("/identity/jwt/secretName", "empty, since identity.jwt.url"),
    ),
    "an identity provider behind a policy": (
        {"identity": {"jwt": JWT}},
        ("/networkPolicy/identityProvider", "keeps the gateway from identity.jwt.url"),
    ),
    "no key of pseudonyms": (
        {"secrets": {"patientKey": {"secretName": ""}}},
        ("/secrets/patientKey/secretName", "never optional"),
    ),
    "keys of page tokens from nowhere": (
        {"secrets": {"pageKeys": {"keys": ["current"]}}},
        ("/secrets/pageKeys/secretName", "the Secret that holds secrets.pageKeys.keys"),
    ),
    "a Secret with page keys of which none is named": (
        {"secrets": {"pageKeys": {"secretName": "dafh-page-keys"}}},
        ("/secrets/pageKeys/keys", "the newest first"),
    ),
    "KEDA without Prometheus": (
        {"triton": {"autoscaling": {"by": "keda"}}, "gateway": {"autoscaling": {"by": "keda"}}},
        ("/monitoring/prometheusUrl", "/monitoring/serviceMonitor", "is keda, which asks there"),
    ),
    "counting by what nobody measures": (
        {"triton": {"autoscaling": {"by": "hpa"}}, "gateway": {"autoscaling": {"by": "hpa"}}},
        ("/monitoring/serviceMonitor", "or set gateway.autoscaling.inFlight to 0"),
    ),
    "cert-manager without an issuer": (
        {"tls": {"certManager": {"enabled": True}}},
        ("/tls/certManager/issuer/name", "the name of an Issuer"),
    ),
    "certificates from two places": (
        {
            "tls": {
                "certManager": {"enabled": True, "issuer": {"name": "x"}},
                "triton": {"secretName": "x"},
                "client": {"secretName": "y"},
            }
        },
        ("/tls/triton/secretName", "/tls/client/secretName", "since cert-manager makes it"),
    ),
    "an Ingress without all that it is": (
        {"ingress": {"enabled": True}},
        ("/ingress/className", "/ingress/host", "/ingress/tlsSecretName", "ingress.enabled"),
    ),
    "a route without all that it is": (
        {"gatewayApi": {"enabled": True}},
        ("/gatewayApi/parents", "/gatewayApi/hostnames", "/gatewayApi/caConfigMap"),
    ),
    "a collector behind a policy": (
        {"monitoring": {"otlpEndpoint": "http://collector:4317"}},
        ("/networkPolicy/collector", "keeps the gateway from monitoring.otlpEndpoint"),
    ),
    "a balancer that may let nobody in": (
        {"gateway": {"service": {"type": "LoadBalancer"}}},
        ("/gateway/service/sourceRanges", "the policy lets nobody in from outside"),
    ),
    "networks of a balancer that is none": (
        {"gateway": {"service": {"sourceRanges": ["192.0.2.0/24"]}}},
        ("/gateway/service/sourceRanges", "only a LoadBalancer has them"),
    ),
    "a budget that keeps a node from ever being emptied": (
        {"gateway": {"disruption": {"maxUnavailable": 0}}},
        ("/gateway/disruption/maxUnavailable", "minimum: got 0, want 1"),
    ),
    "a job's name that is too long": (
        {"jobs": {"the-whole-archive-of-radiology": {"sources": ["/x"]}}},
        ("the-whole-archive-of-radiology", "pattern"),
    ),
    # What a schema cannot say.
    "bounds that cross": (
        {"gateway": {"autoscaling": {"min": 5, "max": 2}}},
        ("gateway.autoscaling: min (5) is more than max (2).",),
    ),
    "a job without what it needs": (
        {"jobs": {"back": {"command": "switch"}}},
        ("jobs.back: switch needs `coding`.",),
    ),
    "shards of what has none": (
        {"jobs": {"b": {"command": "reindex", "sources": ["/x"], "model": 2, "shards": 2}}},
        ("jobs.b: reindex cannot be divided into shards; leave them out.",),
    ),
    "more pods than shards": (
        {"jobs": {"b": {"sources": ["/x"], "parallelism": 3, "shards": 2}}},
        ("jobs.b: parallelism (3) is more than its shards (2).",),
    ),
    "a claim that several nodes cannot share": (
        {
            "jobs": {
                "b": {"sources": ["/x"], "shards": 2, "journal": {"accessMode": "ReadWriteOnce"}}
            }
        },
        ("jobs.b:", "ReadWriteOnce", "journal.perPod"),
    ),
    "a bucket behind a policy": (
        {"jobs": {"b": {"command": "export-codes", "out": "s3://exports/codes"}}},
        ("jobs.b: the policy keeps jobs from s3://exports/codes", "networkPolicy.objectStores"),
    ),
    "images that are not mounted": (
        {"jobs": {"b": {"sources": ["/data/in"], "volumes": [{"claim": "x", "path": "/dat"}]}}},
        ("jobs.b: /data/in is in none of its `volumes`.",),
    ),
    "words of a command that has its own": (
        {"jobs": {"b": {"command": "switch", "coding": "x", "arguments": ["--json"]}}},
        ("jobs.b: `arguments` says nothing to switch, but to dafh",),
    ),
    "a model for what is coded by that of the archive": (
        {"jobs": {"b": {"sources": ["s3://x"], "model": 1}}},
        ("jobs.b: `model` says nothing to index, but to reindex", "or set another `command`"),
    ),
    "a journal in two places": (
        {"jobs": {"b": {"sources": ["s3://x"], "journal": {"claim": "x", "perPod": True}}}},
        ("jobs.b: journal.claim names a claim, and journal.perPod",),
    ),
    "an image without a name": (
        {"models": {"image": {"tag": "1"}}},
        ("/models/image/repository", "or empty those, to use models.claim"),
    ),
    "a version of which no plan is made": (
        {"models": {"version": 2, "versions": [1]}},
        ("models.version: 2 is not among models.versions", "add it there"),
    ),
    "a coding by a version of which no plan is made": (
        {
            "models": {"versions": [2]},
            "jobs": {"b": {"command": "reindex", "model": 3, "sources": ["/x"]}},
        },
        ("jobs.b: model 3 is not among models.versions",),
    ),
    "a Triton that takes calls of anybody": (
        {"triton": {"arguments": ["--grpc-use-ssl-mutual=false"]}},
        ("triton.arguments: --grpc-use-ssl-mutual is set by the chart",),
    ),
    "no model repository": ({"models": {"claim": ""}}, ("models.claim", "models.image")),
}


def merged(base: Part, change: Part) -> Part:
    """Return values with a change of some of them."""
    return base | {
        key: merged(base.get(key, {}), value)
        if isinstance(value, dict) and isinstance(base.get(key, {}), dict)
        else value
        for key, value in change.items()
    }


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_the_place_and_the_reason(case: str) -> None:
    change, told = REFUSED[case]
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmRenderError)) as caught:
        render_texts(merged(values("minimal"), change))
    for words in told:
        assert words in str(caught.value)


def test_each_contradiction_of_the_schema_has_been_told() -> None:
    """Helm prints what `then` asks for, so that it says what to do; `if` is all that is wrong."""
    told = ""
    for change, _ in REFUSED.values():
        with contextlib.suppress(helm_python.HelmRenderError):
            try:
                render_texts(merged(values("minimal"), change))
            except helm_python.HelmValuesError as error:
                told += str(error)
    texts = {_remedy(one["then"]) for one in SCHEMA["allOf"]}
    assert {text for text in texts if f"value must be '{text}'" not in told} == set()


def _remedy(then: Part) -> str:
    """Return what a condition asks for in words, at whatever place."""
    while "const" not in then:
        (then,) = then["properties"].values()
    return str(then["const"])


@pytest.mark.parametrize(
    ("url", "given", "port"),
    [
        ("https://login.example/keys", 0, 443),
        ("https://login.example:8443/keys", 0, 8443),
        ("https://login.example:8443", 0, 8443),
        ("https://[2001:db8::1]/keys", 0, 443),
        ("https://[2001:db8::1]:8443/realms/a:1/keys", 0, 8443),
        ("https://login.login.svc/keys", 8080, 8080),
    ],
)
def test_a_policy_opens_the_port_of_an_address(url: str, given: int, port: int) -> None:
    change = {
        "identity": {"jwt": JWT | {"url": url}},
        "networkPolicy": {"identityProvider": [PEER], "identityProviderPort": given},
    }
    policy = parse(render_texts(merged(values("minimal"), change))).one("NetworkPolicy", "-gateway")
    assert {"to": [PEER], "ports": [{"port": port}]} in policy["spec"]["egress"]


def objects(schema: Any, place: str = "") -> Iterator[tuple[str, Part]]:  # noqa: ANN401 - JSON
    """Yield every part of a schema that describes an object with fields."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield place, schema
        for key, value in schema.items():
            # Conditions only look.
            if key not in {"if", "then", "allOf"}:
                yield from objects(value, f"{place}/{key}")


def test_every_object_is_closed_but_the_values_of_milvus() -> None:
    open_ones = [
        place for place, one in objects(SCHEMA) if one.get("additionalProperties") is not False
    ]
    assert open_ones == ["/properties/milvus"]


def nothings(given: Part) -> Iterator[tuple[str, Part]]:
    """Yield for each value its name, and a change that leaves it empty."""
    for key, value in given.items():
        yield key, {key: None}
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", {key: change}) for name, change in nothings(value))


#: What an operator fills as he likes: maps of labels, resources.
FREE = ("models.image.resources.", "monitoring.dashboardLabels.")


def test_a_key_with_nothing_after_it_is_refused() -> None:
    """To Helm such a key takes the default away: `clients:` alone would open the gateway to all."""
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    for name, change in nothings(given):
        if not name.startswith(FREE):
            with pytest.raises(helm_python.HelmValuesError, match=f"'{name.split('.')[-1]}'"):
                render_texts(merged(values("minimal"), change))


def test_every_value_is_documented_by_a_default() -> None:
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    keys = {key for key in SCHEMA["properties"] if key != "global"}
    assert set(given) == keys
    for key in ("gateway", "triton", "models", "index", "monitoring", "networkPolicy"):
        assert set(given[key]) == set(SCHEMA["properties"][key]["properties"]), key
    assert set(given["jobDefaults"]) == set(SCHEMA["$defs"]["job"]["properties"])


#: Variables of programs that nobody should set in a cluster, and why.
NOT_OFFERED = {
    "DAFH_AUDIT_DIR": "the audit goes to standard output, which the cluster collects",
    "DAFH_LIMITS": "its parts are offered, or follow from decodeMib",
    "DAFH_MODEL_REPOSITORY": "gateway and jobs read the model from Triton",
}


@pytest.mark.parametrize("component", ["gateway", "jobs"])
def test_each_setting_is_made_by_the_chart_or_offered_and_none_is_both(component: str) -> None:
    offered = {
        f"DAFH_{name}"
        for name in SCHEMA["$defs"][
            {"gateway": "gatewaySettings", "jobs": "jobSettings"}[component]
        ]["propertyNames"]["enum"]
    }
    known = {name for kind in SETTINGS[component] for name in variables(kind)}
    assert offered <= known
    made = set()
    for example in CI:
        free = {f"DAFH_{name}" for name in values(example).get("gateway", {}).get("settings", {})}
        for one in manifests_of(example).workloads():
            if one.component == component:
                made |= one.variables - free
    assert made & offered == set()
    missing = known - made - offered - set(NOT_OFFERED)
    # Where an example leaves it out, a template still knows it.
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert {name for name in missing if name not in templates} == set()
    assert GatewaySettings in SETTINGS["gateway"]
