"""Rules about what programs are told; each is taken into the table of `tests.k8s.rules`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from dafh.cli import EXIT_CODES
from dafh.errors import Internal, Misconfigured, Overloaded, Unavailable
from dafh_gateway.server import GRACE
from dafh_gateway.settings import GatewaySettings
from dafh_gateway.siblings import END_S
from dafh_jobs.stopping import RESUME
from tests.k8s.chart import Manifests
from tests.k8s.programs import (
    SETTINGS,
    WrongUsage,
    gateway_metrics,
    gateway_stages,
    parse_command,
    read,
    required,
    variables,
)
from tests.k8s.rules import matched, name_of, rule
from tests.k8s.rules_of_pods import number

#: What Triton tells Prometheus and this chart asks for; a test asks a real one.
TRITON_METRICS = {"nv_inference_queue_duration_us", "nv_inference_request_success"}
#: What runs `dafh`, by the name of its container.
DAFH_CONTAINERS = {"dafh", "plans"}


@rule
def a_variable_is_a_setting_of_its_program(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        known = {name for kind in SETTINGS[workload.component] for name in variables(kind)}
        text = json.dumps([workload.main.get("args"), workload.main["volumeMounts"]])
        for name in sorted(workload.variables - known):
            # Or it is only put into an argument or the name of a folder.
            if f"$({name})" not in text:
                yield f"{workload.name}: {name} is no setting"


@rule
def a_setting_without_a_default_is_set(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        for kind in SETTINGS[workload.component]:
            for name in sorted(required(kind) - workload.variables):
                yield f"{workload.name}: {name} is not set"


@rule
def a_program_takes_its_settings(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        for kind in SETTINGS[workload.component]:
            try:
                settings = read(kind, workload.environment)
                if isinstance(settings, GatewaySettings):
                    settings.require_safety()
            except Misconfigured as error:
                yield f"{workload.name}: {error}"


@rule
def what_a_container_cannot_count_is_said(manifests: Manifests) -> Iterator[str]:
    # By default as many as the node has processors, whatever the container may use.
    for workload in manifests.workloads():
        if workload.component == "triton":
            continue
        wanted = {"DAFH_DECODE_WORKERS"}
        if workload.component == "gateway":
            wanted.add("DAFH_MAX_QUERIES")
        for name in sorted(wanted - workload.variables):
            yield f"{workload.name}: {name} is left to be counted"


@rule
def a_command_is_one_that_dafh_has(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        for container in workload.containers:
            if container["name"] in DAFH_CONTAINERS:
                try:
                    parse_command([str(word) for word in container["args"]])
                except WrongUsage as error:
                    yield f"{workload.name}: {error}"


@rule
def an_address_is_that_of_a_service(manifests: Manifests) -> Iterator[str]:
    services = {
        f"{one['metadata']['name']}.imaging.svc:{port['port']}"
        for one in manifests.of("Service")
        for port in one["spec"]["ports"]
    }
    for workload in manifests.workloads():
        address = workload.environment.get("DAFH_TRITON_ADDRESS")
        if address is not None and address.removeprefix("dns:///") not in services:
            yield f"{workload.name} asks {address}, which is nowhere"
    headless = manifests.one("Service", "-triton")
    if headless["spec"].get("clusterIP") != "None":
        yield "calls to Triton would all go to one pod"


@rule
def what_listens_is_what_is_open(manifests: Manifests) -> Iterator[str]:
    gateway, triton = manifests.workload("gateway"), manifests.workload("triton")
    ports = gateway.ports()
    told = {name: gateway.environment[name].rpartition(":")[2] for name in _LISTENING}
    for name, port in _LISTENING.items():
        if told[name] != str(ports.get(port)):
            yield f"{name} is not the port {port}"
    arguments = dict(
        word.removeprefix("--").split("=", 1) for word in triton.main["args"] if "=" in word
    )
    for option, port in (
        ("http-port", "health"),
        ("grpc-port", "grpc"),
        ("metrics-port", "metrics"),
    ):
        if arguments.get(option) != str(triton.ports().get(port)):
            yield f"Triton's --{option} is not the port {port}"
    for option in ("grpc-use-ssl", "grpc-use-ssl-mutual"):
        if arguments.get(option) != "true":
            yield f"Triton takes calls without --{option}"


@rule
def a_pod_that_came_later_is_found(manifests: Manifests) -> Iterator[str]:
    # Names are looked up again by who connects again.
    gateway, triton = manifests.workload("gateway"), manifests.workload("triton")
    if not float(gateway.environment["DAFH_CONNECTION_AGE"]):
        yield "apps stay with the gateways that they know"
    if not any(str(word).startswith("--grpc-max-connection-age=") for word in triton.main["args"]):
        yield "gateways stay with the Tritons that they know"


_LISTENING = {"DAFH_LISTEN": "grpc", "DAFH_HTTP_LISTEN": "health"}


@rule
def there_is_time_to_end(manifests: Manifests) -> Iterator[str]:
    gateway, triton = manifests.workload("gateway"), manifests.workload("triton")
    drain = float(gateway.environment["DAFH_DRAIN_SECONDS"])
    probe = gateway.main["readinessProbe"]
    if drain < probe["periodSeconds"] * probe["failureThreshold"]:
        yield "the gateway refuses calls before its probe has failed"
    if not drain + GRACE < gateway.pod["terminationGracePeriodSeconds"] <= drain + END_S:
        yield "the gateway is killed while it finishes calls"
    pause = float(triton.main["lifecycle"]["preStop"]["exec"]["command"][-1])
    (patience,) = (
        float(word.partition("=")[2]) for word in triton.main["args"] if "exit-timeout" in word
    )
    if not pause + patience < triton.pod["terminationGracePeriodSeconds"]:
        yield "Triton is killed while it finishes requests"


@rule
def memory_is_enough_for_what_is_allowed(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        told = workload.environment
        if "DAFH_DECODE_WORKERS" not in told:
            continue
        decoding = int(told["DAFH_DECODE_WORKERS"]) * int(told["DAFH_LIMITS__MEMORY_BYTES"])
        budget = int(told.get("DAFH_MEMORY_BUDGET", 0))
        needed = int(told.get("DAFH_PROCESSES", 1)) * (decoding + budget)
        if number(workload.main["resources"]["limits"]["memory"]) < needed:
            yield f"{workload.name} may take more than it may have"


@rule
def a_plan_is_built_where_and_as_it_is_served(manifests: Manifests) -> Iterator[str]:
    triton = manifests.workload("triton")
    builders = [one for one in triton.containers if one["name"] == "plans"]
    repository = next(word for word in triton.main["args"] if "--model-repository" in word)
    gpu = "nvidia.com/gpu"
    limits = triton.main["resources"]["limits"]
    if bool(builders) != (gpu in limits):
        yield "plans need a GPU, and nothing else does"
    for one in builders:
        words = dict(word.split("=", 1) for word in one["args"] if "=" in word)
        if repository.partition("=")[2] != words["--out"]:
            yield "Triton does not serve what was built"
        if one["resources"]["limits"].get(gpu) != limits.get(gpu):
            yield "a plan is built on other GPUs than it is served on"
        volumes = {mount["mountPath"]: mount["name"] for mount in one["volumeMounts"]}
        shared = next(
            volume
            for volume in triton.pod["volumes"]
            if volume["name"] == volumes.get(words["--cache"])
        )
        if "persistentVolumeClaim" not in shared:
            yield "plans are built anew by every pod"


@rule
def a_job_ends_by_its_exit_codes(manifests: Manifests) -> Iterator[str]:
    again = {1, EXIT_CODES[Unavailable], EXIT_CODES[Overloaded]}
    defects = {EXIT_CODES[Internal]}
    hopeless = set(EXIT_CODES.values()) - again - defects
    expected = {"Ignore": {RESUME}, "FailJob": hopeless, "FailIndex": defects}
    for workload in manifests.workloads():
        if workload.kind == "Deployment":
            continue
        policy = workload.spec["podFailurePolicy"]["rules"]
        codes = {
            one["action"]: set(one["onExitCodes"]["values"])
            for one in policy
            if "onExitCodes" in one
        }
        if codes != expected:
            yield f"{workload.name} ends by {codes}, not by {expected}"
        if {"type": "DisruptionTarget", "status": "True"} not in [
            condition for one in policy for condition in one.get("onPodConditions", [])
        ]:
            yield f"{workload.name} counts evictions as failures"
        names = {one["onExitCodes"]["containerName"] for one in policy if "onExitCodes" in one}
        if names != {workload.main["name"]} or workload.pod["restartPolicy"] != "Never":
            yield f"{workload.name}: its exit codes would not be seen"
        if "backoffLimitPerIndex" not in workload.spec:
            yield f"{workload.name}: one part that fails would end all"


@rule
def each_part_of_a_job_knows_which_it_is(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        if workload.kind == "Deployment":
            continue
        parts = workload.spec["completions"]
        if workload.spec.get("completionMode") != "Indexed":
            yield f"{workload.name} has no parts"
        if workload.environment.get("DAFH_SHARDS") != str(parts):
            yield f"{workload.name} does not know of how many parts"
        if not workload.spec["parallelism"] <= parts:
            yield f"{workload.name} runs more pods than it has parts"
        volumes = {volume["name"]: volume for volume in workload.pod["volumes"]}
        for mount in workload.main["volumeMounts"]:
            own = mount.get("subPathExpr") == "$(JOB_COMPLETION_INDEX)"
            if mount["name"] == "journal" and not (own or "ephemeral" in volumes["journal"]):
                yield f"{workload.name}: its parts share a journal"


@rule
def a_metric_that_is_asked_for_exists(manifests: Manifests) -> Iterator[str]:
    known = gateway_metrics() | TRITON_METRICS
    asked = [
        (one, entry["expr"])
        for one in manifests.of("PrometheusRule")
        for group in one["spec"]["groups"]
        for entry in group["rules"]
    ]
    for one in manifests.of("ConfigMap"):
        if one["metadata"]["name"].endswith("-dashboard"):
            board = json.loads(one["data"]["dafh.json"])
            asked += [
                (one, target["expr"]) for panel in board["panels"] for target in panel["targets"]
            ]
    for one in manifests.of("ScaledObject"):
        asked += [
            (one, trigger["metadata"]["query"])
            for trigger in one["spec"]["triggers"]
            if trigger["type"] == "prometheus"
        ]
    for one, expression in asked:
        names = set(re.findall(r"\b(?:dafh|nv)_\w+", expression))
        if not names or not names <= known:
            yield f"{name_of(one)} asks for {sorted(names - known)}"
        stages = set(re.findall(r'stage="([^"]+)"', expression))
        if not stages <= gateway_stages():
            yield f"{name_of(one)} asks for the stages {sorted(stages)}"


@rule
def a_scaler_asks_for_series_that_are_scraped(manifests: Manifests) -> Iterator[str]:
    scraped = {
        service["metadata"]["name"]
        for service in manifests.of("Service")
        if service["metadata"]["labels"].get("dafh/metrics") == "true"
        and matched(manifests, service["spec"]["selector"])
    }
    for one in manifests.of("ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            jobs = set(re.findall(r'job="([^"]*)"', trigger["metadata"].get("query", "")))
            if not jobs <= scraped:
                yield f"{name_of(one)} asks for {sorted(jobs - scraped)}, which nobody scrapes"
    for one in manifests.of("HorizontalPodAutoscaler"):
        for metric in one["spec"]["metrics"]:
            labels = metric.get("external", {}).get("metric", {}).get("selector", {})
            if labels and labels["matchLabels"]["job"] not in scraped:
                yield f"{name_of(one)} asks for {labels['matchLabels']}, which nobody scrapes"
