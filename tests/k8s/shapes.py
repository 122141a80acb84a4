"""What the kinds look like that Kubernetes itself has no schema of, as far as the chart uses them.

Written from their documentation and closed: a key that is not here is one that nobody looked up.
"""

from __future__ import annotations

from typing import Any

Shape = dict[str, Any]

TEXT: Shape = {"type": "string", "minLength": 1}
WHOLE: Shape = {"type": "integer"}
LABELS: Shape = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(*needed: str, **fields: Shape) -> Shape:
    """Return the shape of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(needed),
        "additionalProperties": False,
    }


def each(item: Shape, least: int = 1) -> Shape:
    """Return the shape of a list."""
    return {"type": "array", "items": item, "minItems": least}


def one_of(*words: object) -> Shape:
    """Return the shape of a word out of some."""
    return {"enum": list(words)}


_SELECTOR = closed("matchLabels", matchLabels=LABELS)
_TARGET = closed("name", apiVersion=TEXT, kind=TEXT, name=TEXT)
_BEHAVIOUR = closed(
    scaleUp=closed(stabilizationWindowSeconds=WHOLE),
    scaleDown=closed(
        stabilizationWindowSeconds=WHOLE,
        policies=each(
            closed("type", "value", "periodSeconds", type=TEXT, value=WHOLE, periodSeconds=WHOLE)
        ),
    ),
)

#: ``apiVersion/kind`` -> shape of its spec.
SHAPES: dict[str, Shape] = {
    # KEDA 2: triggers' metadata are texts, whatever they hold.
    "keda.sh/v1alpha1/ScaledObject": closed(
        "scaleTargetRef",
        "triggers",
        scaleTargetRef=_TARGET,
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        advanced=closed(horizontalPodAutoscalerConfig=closed(behavior=_BEHAVIOUR)),
        triggers=each(
            closed(
                "type",
                "metadata",
                type=one_of("cpu", "prometheus"),
                metricType=one_of("Utilization", "AverageValue", "Value"),
                metadata=LABELS,
            )
        ),
    ),
    "cert-manager.io/v1/Certificate": closed(
        "secretName",
        "issuerRef",
        secretName=TEXT,
        duration=TEXT,
        renewBefore=TEXT,
        commonName={**TEXT, "maxLength": 64},
        dnsNames=each(TEXT),
        usages=each(one_of("server auth", "client auth")),
        privateKey=closed(
            algorithm=one_of("ECDSA"), size=one_of(256, 384), rotationPolicy=one_of("Always")
        ),
        issuerRef=closed("name", name=TEXT, kind=TEXT, group=TEXT),
    ),
    "gateway.networking.k8s.io/v1/GRPCRoute": closed(
        "parentRefs",
        "rules",
        parentRefs=each(closed("name", name=TEXT, namespace=TEXT, sectionName=TEXT, port=WHOLE)),
        hostnames=each(TEXT),
        rules=each(closed(backendRefs=each(closed("name", "port", name=TEXT, port=WHOLE)))),
    ),
    "gateway.networking.k8s.io/v1/BackendTLSPolicy": closed(
        "targetRefs",
        "validation",
        targetRefs=each(closed("group", "kind", "name", group=one_of(""), kind=TEXT, name=TEXT)),
        validation=closed(
            "hostname",
            hostname=TEXT,
            caCertificateRefs=each(
                closed(
                    "group", "kind", "name", group=one_of(""), kind=one_of("ConfigMap"), name=TEXT
                )
            ),
        ),
    ),
    "monitoring.coreos.com/v1/ServiceMonitor": closed(
        "selector",
        "endpoints",
        selector=_SELECTOR,
        endpoints=each(closed("port", port=TEXT, path=TEXT, interval=TEXT)),
    ),
    "monitoring.coreos.com/v1/PrometheusRule": closed(
        "groups",
        groups=each(
            closed(
                "name",
                "rules",
                name=TEXT,
                rules=each(
                    closed(
                        "alert",
                        "expr",
                        alert=TEXT,
                        expr=TEXT,
                        labels=LABELS,
                        annotations=LABELS,
                        **{"for": TEXT},
                    )
                ),
            )
        ),
    ),
}
