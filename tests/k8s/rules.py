"""Rules that one object alone cannot break: name -> what breaks it, in words.

What a schema can see is checked against the schemas; this is what schemas miss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.k8s.chart import Manifests, Part, Workload, selects

Rule = Callable[[Manifests], Iterator[str]]

#: All rules by name; `rules_of_pods` and `rules_of_programs` add theirs.
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Take a rule into the table, under its own name."""
    RULES[check.__name__.replace("_", " ")] = check
    return check


def breaches(manifests: Manifests) -> dict[str, list[str]]:
    """Return what breaks which rule."""
    found = {name: list(check(manifests)) for name, check in RULES.items()}
    return {name: told for name, told in found.items() if told}


def name_of(one: Part) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def matched(manifests: Manifests, selector: Part) -> list[Workload]:
    """Return whose pods a label selector selects."""
    return [one for one in manifests.workloads() if selects(selector, one.labels)]


# Selectors.


@rule
def a_deployment_selects_its_own_pods_and_no_others(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("Deployment"):
        found = matched(manifests, one["spec"]["selector"]["matchLabels"])
        if [workload.name for workload in found] != [one["metadata"]["name"]]:
            yield f"{name_of(one)} selects {[workload.name for workload in found]}"


@rule
def a_selector_finds_pods(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("Service"):
        if not matched(manifests, one["spec"]["selector"]):
            yield f"{name_of(one)} selects nothing"
    for one in manifests.of("PodDisruptionBudget"):
        if len(matched(manifests, one["spec"]["selector"]["matchLabels"])) != 1:
            yield f"{name_of(one)} does not guard one thing"
    for workload in manifests.workloads():
        for spread in workload.pod.get("topologySpreadConstraints", []):
            if not selects(spread["labelSelector"]["matchLabels"], workload.labels):
                yield f"{workload.name} spreads pods that are not its own"


@rule
def a_monitor_finds_a_service_with_its_port(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("ServiceMonitor"):
        services = [
            service
            for service in manifests.of("Service")
            if selects(one["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
        ]
        if len(services) != 1:
            yield f"{name_of(one)} finds {len(services)} services"
        for service in services:
            ports = {port["name"] for port in service["spec"]["ports"]}
            if not {endpoint["port"] for endpoint in one["spec"]["endpoints"]} <= ports:
                yield f"{name_of(one)} asks for a port that {name_of(service)} lacks"


# Ports.


@rule
def a_service_leads_to_a_port_that_is_open(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("Service"):
        for workload in matched(manifests, one["spec"]["selector"]):
            for port in one["spec"]["ports"]:
                if workload.ports().get(port["targetPort"]) != port["port"]:
                    yield f"{name_of(one)}: {port} is not a port of {workload.name}"


@rule
def a_probe_asks_a_port_that_is_open_over_http(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        if workload.kind != "Deployment":
            continue
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = workload.main.get(probe, {}).get("httpGet")
            if asked is None or asked["port"] != "health" or "health" not in workload.ports():
                yield f"{workload.name}: {probe} does not ask the health port"


@rule
def a_route_leads_to_a_service(manifests: Manifests) -> Iterator[str]:
    ports = {
        (service["metadata"]["name"], key)
        for service in manifests.of("Service")
        for port in service["spec"]["ports"]
        for key in (port["port"], port["name"])
    }
    asked: list[tuple[Part, str, object]] = []
    for one in manifests.of("GRPCRoute"):
        asked += [
            (one, backend["name"], backend["port"])
            for rules in one["spec"]["rules"]
            for backend in rules["backendRefs"]
        ]
    for one in manifests.of("Ingress"):
        for entry in one["spec"]["rules"]:
            for path in entry["http"]["paths"]:
                service = path["backend"]["service"]
                asked.append((one, service["name"], service["port"]["name"]))
    for one in manifests.of("BackendTLSPolicy"):
        asked += [(one, target["name"], 50051) for target in one["spec"]["targetRefs"]]
    for one, name, port in asked:
        if (name, port) not in ports:
            yield f"{name_of(one)} leads to {name}:{port}, which is not there"


# Who may reach whom.

#: Component and port -> components that may reach it; all else of ours is closed.
OPEN = {("triton", 8001): {"gateway", "jobs"}, ("milvus", 19530): {"gateway", "jobs"}}
#: Ports for the kubelet alone, and that of Milvus which tells and does too much.
NOBODY = {("triton", 8000), ("milvus", 9091)}


def policies(manifests: Manifests, component: str) -> list[Part]:
    """Return the policies for a component's pods; Milvus's are those of another chart."""
    found = []
    for one in manifests.of("NetworkPolicy"):
        labels = one["spec"]["podSelector"]["matchLabels"]
        own = labels.get("app.kubernetes.io/component")
        if component == (own or labels.get("app.kubernetes.io/name")):
            found.append(one)
    return found


def peers(rules: list[Part], side: str, port: int) -> list[Part]:
    """Return the peers that may use a port; of a rule for anybody an empty one."""
    return [
        peer
        for one in rules
        if any(opens(allowed, port) for allowed in one.get("ports", [{}]))
        for peer in one.get(side) or [{}]
    ]


def opens(allowed: Part, port: int) -> bool:
    """Say whether a port of a policy is, or spans, a number."""
    if "port" not in allowed:
        return True
    first: int = allowed["port"]
    last: int = allowed.get("endPort", first)
    return first <= port <= last


def component_of(peer: Part) -> str:
    """Return which component a peer is; "" for anything that is not one of ours alone."""
    if set(peer) != {"podSelector"}:
        return ""
    labels = peer["podSelector"]["matchLabels"]
    return str(
        labels.get("app.kubernetes.io/component") or labels.get("app.kubernetes.io/name", "")
    )


@rule
def every_pod_has_a_policy_in_both_directions(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        directions = {
            direction
            for one in policies(manifests, workload.component)
            if selects(one["spec"]["podSelector"]["matchLabels"], workload.labels)
            for direction in one["spec"]["policyTypes"]
        }
        if directions != {"Ingress", "Egress"}:
            yield f"{workload.name} has policies for {sorted(directions)}"


@rule
def triton_and_milvus_are_reached_by_gateway_and_jobs_alone(
    manifests: Manifests,
) -> Iterator[str]:
    for (component, port), allowed in OPEN.items():
        for one in policies(manifests, component):
            let_in = {
                component_of(peer) for peer in peers(one["spec"]["ingress"], "from", port)
            } - {component}
            if let_in != allowed:
                yield f"{name_of(one)} lets {sorted(let_in)} reach {port}"


@rule
def what_is_for_the_kubelet_is_reached_by_nobody(manifests: Manifests) -> Iterator[str]:
    for component, port in NOBODY:
        for one in policies(manifests, component):
            if peers(one["spec"]["ingress"], "from", port):
                yield f"{name_of(one)} lets somebody reach {port}"


@rule
def who_asks_may_go_where_it_asks(manifests: Manifests) -> Iterator[str]:
    targets = {"triton": 8001} | ({"milvus": 19530} if policies(manifests, "milvus") else {})
    present = {one.component for one in manifests.workloads()} & {"gateway", "jobs"}
    for asking in present:
        for one in policies(manifests, asking):
            for component, port in targets.items():
                if component not in {
                    component_of(peer) for peer in peers(one["spec"]["egress"], "to", port)
                }:
                    yield f"{name_of(one)} does not let it reach {component}"
            if not peers(one["spec"]["egress"], "to", 53) + peers(
                one["spec"]["egress"], "to", 5353
            ):
                yield f"{name_of(one)} does not let it look up names"


#: Address in a variable or an argument: scheme, host, port.
ADDRESS = re.compile(r"(\w+)://(?:/?)([\w.-]+)(?::(\d+))?")
#: Variables with an address that stands for something, or that others ask.
UNASKED = {"DAFH_JWT_ISSUER", "DAFH_RETRIEVE_URI"}
#: Of a scheme, where an address names no port.
PORTS = {"https": 443, "http": 80, "s3": 443}


def asked(workload: Workload) -> Iterator[tuple[str, int]]:
    """Yield addresses that a program is told to ask, and their ports."""
    told = [value for name, value in workload.environment.items() if name not in UNASKED]
    for words in [*told, *map(str, workload.main.get("args", []))]:
        if found := ADDRESS.search(words):
            yield words, int(found[3] or PORTS[found[1]])


@rule
def what_is_outside_may_be_asked(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        for address, port in asked(workload):
            if not any(
                peers(one["spec"]["egress"], "to", port)
                for one in policies(manifests, workload.component)
            ):
                yield f"{workload.name} may not reach {address}"


@rule
def who_scrapes_and_who_calls_from_outside_is_let_in(manifests: Manifests) -> Iterator[str]:
    for service in manifests.of("Service"):
        spec = service["spec"]
        (component,) = {one.component for one in matched(manifests, spec["selector"])}
        (policy,) = policies(manifests, component)
        for port in spec["ports"]:
            let_in = peers(policy["spec"]["ingress"], "from", port["port"])
            if not let_in:
                yield f"{name_of(policy)} lets nobody reach {name_of(service)}"
            networks = {peer["ipBlock"]["cidr"] for peer in let_in if "ipBlock" in peer}
            if missing := set(spec.get("loadBalancerSourceRanges", [])) - networks:
                yield f"{name_of(policy)} keeps {sorted(missing)} from {name_of(service)}"
        if spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") != "Local":
            yield f"{name_of(service)} hides its callers from the policy"


@rule
def a_policy_opens_ports_that_are_served(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        served = {
            port["containerPort"]
            for container in workload.pod["containers"]
            for port in container.get("ports", [])
        }
        for one in policies(manifests, workload.component):
            opened = {port["port"] for rules in one["spec"]["ingress"] for port in rules["ports"]}
            if not opened <= served:
                yield f"{name_of(one)} opens {sorted(opened - served)}, which nobody serves"


# Scaling.


@rule
def replicas_are_counted_by_one(manifests: Manifests) -> Iterator[str]:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in manifests.of("HorizontalPodAutoscaler", "ScaledObject")
    }
    for one in manifests.of("Deployment"):
        if ("replicas" in one["spec"]) == (one["metadata"]["name"] in scaled):
            yield f"{name_of(one)} is counted by two, or by nobody"
    for missing in scaled - manifests.names("Deployment"):
        yield f"{missing} is scaled, and not there"


@rule
def a_scaler_has_bounds_in_order_and_an_aim(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        spec = one["spec"]
        words = ("minReplicas", "maxReplicas")
        least, most = (spec.get(word) or spec.get(f"{word[:-1]}Count", 0) for word in words)
        if not 0 < least <= most:
            yield f"{name_of(one)} scales from {least} to {most}"
        if not (spec.get("metrics") or spec.get("triggers")):
            yield f"{name_of(one)} has nothing to scale by"


@rule
def a_rule_of_prometheus_is_guarded_against_nothing_to_divide_by(
    manifests: Manifests,
) -> Iterator[str]:
    for one in manifests.of("ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            query = trigger["metadata"].get("query", "")
            if "/" in query and not ("> 0)" in query and query.endswith("or vector(0)")):
                yield f"{name_of(one)} divides by what may be 0"


# Certificates.


@rule
def a_certificate_is_mounted_and_names_whom_it_is_of(manifests: Manifests) -> Iterator[str]:
    secrets = {
        volume["secret"]["secretName"]
        for workload in manifests.workloads()
        for volume in workload.pod["volumes"]
        if "secret" in volume
    }
    hosts = {f"{service['metadata']['name']}.imaging.svc" for service in manifests.of("Service")}
    for one in manifests.of("Certificate"):
        spec = one["spec"]
        if "milvus-server" in spec["secretName"]:
            continue
        if spec["secretName"] not in secrets:
            yield f"{name_of(one)} is mounted by nobody"
        if spec["usages"] == ["server auth"] and not hosts & set(spec["dnsNames"]):
            yield f"{name_of(one)} names no service"
