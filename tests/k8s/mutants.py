"""Faults that somebody could make in the chart, each with the rule that must find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.k8s.chart import Manifests, Part

Change = Callable[[Manifests], Any]


def container(manifests: Manifests, component: str, name: str = "") -> Part:
    """Return a container of a component's pods, the main one where none is named."""
    workload = manifests.workload(component)
    (found,) = [
        one for one in workload.containers if one["name"] == (name or workload.main["name"])
    ]
    return found


def variable(component: str, name: str, value: str | None) -> Change:
    """Give a variable another value, or take it away."""

    def change(manifests: Manifests) -> None:
        program = container(manifests, component)
        program["env"] = [one for one in program["env"] if one["name"] != name]
        if value is not None:
            program["env"].append({"name": name, "value": value})

    return change


def argument(component: str, old: str, new: str, name: str = "") -> Change:
    """Replace the argument that begins so."""

    def change(manifests: Manifests) -> None:
        program = container(manifests, component, name)
        changed = [new if str(word).startswith(old) else word for word in program["args"]]
        assert changed != program["args"], old
        program["args"] = changed

    return change


def field(kind: str, ending: str, path: str, value: object) -> Change:
    """Set a field of an object, named by its path; ``None`` takes it away."""

    def change(manifests: Manifests) -> None:
        set_field(manifests.one(kind, ending), path, value)

    return change


def pod(component: str, path: str, value: object) -> Change:
    """Set a field of a component's pods."""

    def change(manifests: Manifests) -> None:
        set_field(manifests.workload(component).pod, path, value)

    return change


def job(path: str, value: object) -> Change:
    """Set a field of a job's specification."""

    def change(manifests: Manifests) -> None:
        set_field(manifests.workload("jobs").spec, path, value)

    return change


def set_field(part: Any, path: str, value: object) -> None:  # noqa: ANN401 - any part
    """Set what is at a path such as ``spec.ports.0.port``; ``None`` takes it away."""
    *way, last = (int(word) if word.isdigit() else word for word in path.split("."))
    for word in way:
        part = part[word]
    if value is None:
        del part[last]
    else:
        part[last] = value


def peer(name: str, side: str, number: int, value: Part) -> Change:
    """Let somebody else through a policy, in its n-th rule."""

    def change(manifests: Manifests) -> None:
        rules = manifests.one("NetworkPolicy", f"-{name}")["spec"]
        rules["ingress" if side == "from" else "egress"][number][side].append(value)

    return change


def rules(name: str, side: str, value: object) -> Change:
    """Replace the rules of a policy in a direction."""

    def change(manifests: Manifests) -> None:
        manifests.one("NetworkPolicy", f"-{name}")["spec"][side] = value

    return change


def query(ending: str, old: str, new: str) -> Change:
    """Change what a scaler asks Prometheus."""

    def change(manifests: Manifests) -> None:
        for trigger in manifests.one("ScaledObject", ending)["spec"]["triggers"]:
            asked = trigger["metadata"]
            asked["query"] = asked.get("query", "").replace(old, new)

    return change


def secret(manifests: Manifests) -> None:
    manifests.objects.append(
        {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}, "stringData": {"k": "v"}}
    )


def shared_journal(manifests: Manifests) -> None:
    for mount in container(manifests, "jobs")["volumeMounts"]:
        mount.pop("subPathExpr", None)


def _mount(component: str, name: str, path: str) -> Change:
    def change(manifests: Manifests) -> None:
        for mount in container(manifests, component)["volumeMounts"]:
            if mount["name"] == name:
                mount["mountPath"] = path

    return change


ANYBODY: Part = {"namespaceSelector": {}}
COMPONENT = "app.kubernetes.io/component"

#: Rule, example, fault. Every rule has one at least.
MUTANTS: tuple[tuple[str, str, Change], ...] = (
    ("a deployment selects its own pods and no others", "minimal",
     field("Deployment", "-triton", "spec.selector.matchLabels", {COMPONENT: "gateway"})),
    ("a deployment selects its own pods and no others", "production",
     field("Deployment", "-gateway", "spec.selector.matchLabels",
           {"app.kubernetes.io/name": "dafh"})),
    ("a selector finds pods", "minimal",
     field("Service", "-gateway", "spec.selector", {COMPONENT: "gatway"})),
    ("a selector finds pods", "production",
     field("PodDisruptionBudget", "-triton", "spec.selector.matchLabels", {COMPONENT: "tritn"})),
    ("a selector finds pods", "minimal",
     pod("gateway", "topologySpreadConstraints.0.labelSelector.matchLabels",
         {COMPONENT: "triton"})),
    ("a monitor finds a service with its port", "production",
     field("ServiceMonitor", "-triton", "spec.endpoints.0.port", "health")),
    ("a service leads to a port that is open", "minimal",
     field("Service", "-gateway", "spec.ports.0.targetPort", "https")),
    ("a service leads to a port that is open", "minimal",
     field("Service", "-triton", "spec.ports.0.port", 8002)),
    ("a probe asks a port that is open over http", "minimal",
     lambda made: container(made, "gateway").update(readinessProbe={"grpc": {"port": 50051}})),
    ("a probe asks a port that is open over http", "single-gpu",
     lambda made: container(made, "triton").pop("startupProbe")),
    ("a route leads to a service", "air-gapped",
     field("Ingress", "-gateway", "spec.rules.0.http.paths.0.backend.service.name", "gateway")),
    ("a route leads to a service", "production",
     field("GRPCRoute", "-gateway", "spec.rules.0.backendRefs.0.port", 443)),
    ("every pod has a policy in both directions", "minimal",
     field("NetworkPolicy", "-triton", "spec.policyTypes", ["Ingress"])),
    ("every pod has a policy in both directions", "production",
     lambda made: made.objects.remove(made.one("NetworkPolicy", "-jobs"))),
    ("triton and milvus are reached by gateway and jobs alone", "minimal",
     peer("triton", "from", 0, ANYBODY)),
    ("triton and milvus are reached by gateway and jobs alone", "single-gpu",
     peer("milvus", "from", 0, ANYBODY)),
    ("what is for the kubelet is reached by nobody", "single-gpu",
     field("NetworkPolicy", "-milvus", "spec.ingress.1.ports.0.endPort", 9091)),
    ("what is for the kubelet is reached by nobody", "minimal",
     lambda made: made.one("NetworkPolicy", "-triton")["spec"]["ingress"].append(
         {"from": [ANYBODY], "ports": [{"port": 8000}]})),
    ("who asks may go where it asks", "minimal",
     field("NetworkPolicy", "-gateway", "spec.egress.1.ports.0.port", 8000)),
    ("who asks may go where it asks", "production", rules("jobs", "egress", [])),
    ("what is outside may be asked", "openshift",
     field("NetworkPolicy", "-gateway", "spec.egress.3.ports.0.port", 8443)),
    ("what is outside may be asked", "production",
     variable("gateway", "DAFH_OTLP_ENDPOINT", "http://collector.tracing.svc:4318")),
    ("what is outside may be asked", "production",
     lambda made: made.one("NetworkPolicy", "-jobs")["spec"]["egress"].pop()),
    ("who scrapes and who calls from outside is let in", "production",
     lambda made: made.one("NetworkPolicy", "-triton")["spec"]["ingress"].pop()),
    ("who scrapes and who calls from outside is let in", "openshift",
     lambda made: made.one("NetworkPolicy", "-gateway")["spec"]["ingress"][0]["from"].pop()),
    ("who scrapes and who calls from outside is let in", "openshift",
     field("Service", "-gateway", "spec.externalTrafficPolicy", "Cluster")),
    ("a policy opens ports that are served", "minimal",
     field("NetworkPolicy", "-gateway", "spec.ingress.1.ports.0.port", 9091)),
    ("replicas are counted by one", "production",
     field("Deployment", "-gateway", "spec.replicas", 2)),
    ("replicas are counted by one", "minimal",
     field("Deployment", "-triton", "spec.replicas", None)),
    ("a scaler has bounds in order and an aim", "air-gapped",
     field("HorizontalPodAutoscaler", "-gateway", "spec.minReplicas", 9)),
    ("a scaler has bounds in order and an aim", "production",
     field("ScaledObject", "-triton", "spec.triggers", [])),
    ("a rule of prometheus is guarded against nothing to divide by", "production",
     query("-triton", " > 0)", ")")),
    ("a certificate is mounted and names whom it is of", "openshift",
     field("Certificate", "-triton", "spec.dnsNames", ["triton"])),
    ("a certificate is mounted and names whom it is of", "openshift",
     field("Certificate", "-client", "spec.secretName", "another")),
    ("a mount has a volume and a volume a mount", "minimal",
     lambda made: made.workload("gateway").pod["volumes"].pop()),
    ("a file that a program is told of is mounted", "minimal",
     _mount("gateway", "patient-key", "/etc/dafh/key")),
    ("a file that a program is told of is mounted", "minimal",
     argument("triton", "--model-repository", "--model-repository=/serving")),
    ("a name that a pod refers to is there", "minimal",
     pod("gateway", "serviceAccountName", "rel-dafh-gatway")),
    ("a name that a pod refers to is there", "production",
     lambda made: made.objects.remove(made.one("PersistentVolumeClaim", "-plans"))),
    ("a secret is named and never written", "minimal", secret),
    ("a secret is named and never written", "minimal",
     argument("triton", "--http-port", "--password=hunter2")),
    ("a pod may do nothing that it need not", "minimal",
     pod("triton", "automountServiceAccountToken", True)),
    ("a pod may do nothing that it need not", "single-gpu",
     lambda made: container(made, "triton", "plans")["securityContext"].pop("capabilities")),
    ("a pod may do nothing that it need not", "openshift",
     pod("gateway", "securityContext.seccompProfile.type", "Unconfined")),
    ("a pod may do nothing that it need not", "minimal",
     lambda made: container(made, "gateway")["resources"]["limits"].pop("memory")),
    ("names and quantities are such as kubernetes takes", "minimal",
     lambda made: container(made, "gateway")["resources"]["limits"].update(memory="4GB")),
    ("names and quantities are such as kubernetes takes", "minimal",
     lambda made: container(made, "gateway")["resources"]["requests"].update(memory="64Gi")),
    ("names and quantities are such as kubernetes takes", "minimal",
     field("Service", "-triton", "metadata.name", "Triton_Server-triton")),
    ("an image is one that is known", "minimal",
     lambda made: container(made, "gateway").update(image="dafh-gateway:latest")),
    ("a variable is a setting of its program", "minimal",
     variable("gateway", "DAFH_DECODE_WORKER", "2")),
    ("a setting without a default is set", "production",
     variable("gateway", "DAFH_PATIENT_KEY_FILE", None)),
    ("a program takes its settings", "minimal", variable("gateway", "DAFH_PROCESSES", "none")),
    ("a program takes its settings", "minimal", variable("gateway", "DAFH_ACCOUNTS", None)),
    ("what a container cannot count is said", "production",
     variable("jobs", "DAFH_DECODE_WORKERS", None)),
    ("a command is one that dafh has", "production",
     argument("jobs", "--tenant", "--tennant=default")),
    ("a command is one that dafh has", "single-gpu",
     argument("triton", "--precision", "--precision=fp17", "plans")),
    ("an address is that of a service", "minimal",
     variable("gateway", "DAFH_TRITON_ADDRESS", "dns:///rel-triton.imaging.svc:8001")),
    ("an address is that of a service", "minimal",
     field("Service", "-triton", "spec.clusterIP", None)),
    ("what listens is what is open", "minimal",
     variable("gateway", "DAFH_HTTP_LISTEN", "0.0.0.0:9091")),
    ("what listens is what is open", "minimal",
     argument("triton", "--grpc-use-ssl-mutual", "--grpc-use-ssl-mutual=false")),
    ("a pod that came later is found", "minimal", variable("gateway", "DAFH_CONNECTION_AGE", "0")),
    ("a pod that came later is found", "production",
     argument("triton", "--grpc-max-connection-age", "--allow-metrics=true")),
    ("there is time to end", "minimal", pod("gateway", "terminationGracePeriodSeconds", 10)),
    ("there is time to end", "minimal", variable("gateway", "DAFH_DRAIN_SECONDS", "2")),
    ("there is time to end", "minimal", pod("triton", "terminationGracePeriodSeconds", 20)),
    ("memory is enough for what is allowed", "minimal",
     variable("gateway", "DAFH_MEMORY_BUDGET", "8589934592")),
    ("a plan is built where and as it is served", "single-gpu",
     argument("triton", "--out", "--out=/models", "plans")),
    ("a plan is built where and as it is served", "single-gpu",
     lambda made: container(made, "triton", "plans")["resources"]["limits"].pop("nvidia.com/gpu")),
    ("a job ends by its exit codes", "production",
     job("podFailurePolicy.rules.2.onExitCodes.values", [2, 3, 4, 5])),
    ("a job ends by its exit codes", "production",
     job("podFailurePolicy.rules.1.onExitCodes.values", [74])),
    ("a job ends by its exit codes", "production", job("backoffLimitPerIndex", None)),
    ("each part of a job knows which it is", "production", variable("jobs", "DAFH_SHARDS", "3")),
    ("each part of a job knows which it is", "single-gpu", shared_journal),
    ("a metric that is asked for exists", "production",
     query("-gateway", "dafh_stage_busy", "dafh_stages_busy")),
    ("a metric that is asked for exists", "production",
     query("-triton", "nv_inference_queue_duration_us", "nv_inference_queue_us")),
    ("a metric that is asked for exists", "production",
     query("-gateway", 'stage="a query"', 'stage="queries"')),
    ("a scaler asks for series that are scraped", "production",
     query("-triton", "rel-dafh-triton-metrics", "rel-dafh-triton")),
    ("a scaler asks for series that are scraped", "air-gapped",
     field("HorizontalPodAutoscaler", "-triton",
           "spec.metrics.0.external.metric.selector.matchLabels.job", "dafh-triton-metrics")),
)  # fmt: skip
