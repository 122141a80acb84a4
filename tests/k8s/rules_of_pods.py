"""Rules about what is in a pod; each is taken into the table of `tests.k8s.rules`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.k8s.chart import FULL_NAME, Manifests, Part, Workload
from tests.k8s.rules import name_of, rule

#: A subdomain name (RFC 1123), and a quantity.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
UNITS = {
    None: 1.0, "m": 1e-3, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30,
    "T": 1e12, "Ti": 2**40,
}  # fmt: skip
#: Folders that programs write to: no volume there may be read-only.
WRITABLE = ("/tmp", "/plans", "/serving", "/dev/shm", "/var/lib/dafh")  # noqa: S108 - in a container


def number(quantity: object) -> float:
    """Return what a quantity is.

    Raises
    ------
    ValueError
        It is none.
    """
    found = QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ValueError(str(quantity))
    return float(found[1]) * UNITS[found[2]]


@rule
def a_mount_has_a_volume_and_a_volume_a_mount(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        volumes = {volume["name"] for volume in workload.pod["volumes"]}
        mounted = {
            mount["name"]
            for container in workload.containers
            for mount in container.get("volumeMounts", [])
        }
        if volumes != mounted:
            yield f"{workload.name}: {sorted(volumes ^ mounted)}"
        for container in workload.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{workload.name}: two volumes at one place"


@rule
def a_file_that_a_program_is_told_of_is_mounted(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        for container in workload.containers:
            told = [one["value"] for one in container.get("env", []) if "value" in one]
            told += container.get("args", [])
            files = {
                file
                for text in told
                for file in re.findall(r"/(?:etc/dafh|models|serving|plans)[^\"', ]*", text)
                if "://" not in text
            }
            mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            for file in sorted(files):
                if not any(f"{file}/".startswith(f"{mount}/") for mount in mounts):
                    yield f"{workload.name}: {container['name']} has no {file}"


@rule
def a_name_that_a_pod_refers_to_is_there(manifests: Manifests) -> Iterator[str]:
    kinds = ("ConfigMap", "PersistentVolumeClaim", "ServiceAccount", "PriorityClass")
    there = {kind: manifests.names(kind) for kind in kinds}
    for workload in manifests.workloads():
        asked = [("ServiceAccount", workload.pod.get("serviceAccountName", "default"))]
        if "priorityClassName" in workload.pod:
            asked.append(("PriorityClass", workload.pod["priorityClassName"]))
        for volume in workload.pod["volumes"]:
            if "configMap" in volume:
                asked.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                asked.append(
                    ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
                )
        for kind, name in asked:
            # What the operator names is the operator's.
            if name not in there[kind] and (name.startswith(FULL_NAME) or kind == "ServiceAccount"):
                yield f"{workload.name}: there is no {kind} {name}"


@rule
def a_secret_is_named_and_never_written(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("Secret"):
        yield f"{name_of(one)} is in the chart"
    for workload in manifests.workloads():
        for volume in workload.pod["volumes"]:
            if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
                yield f"{workload.name}: {volume['name']} is not for the pod's group alone"
        for container in workload.containers:
            words = [*container.get("args", []), *container.get("command", [])]
            words += [f"{one['name']}={one.get('value', '')}" for one in container.get("env", [])]
            for word in words:
                if re.search(r"(?i)(password|passwd|secret|token)=(?!/)\S", word):
                    yield f"{workload.name}: {word}"


@rule
def a_pod_may_do_nothing_that_it_need_not(manifests: Manifests) -> Iterator[str]:
    for workload in manifests.workloads():
        pod = workload.pod
        context = pod.get("securityContext", {})
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{workload.name} has a token of the cluster"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{workload.name} is in the namespaces of its node"
        if any("hostPath" in volume for volume in pod["volumes"]):
            yield f"{workload.name} has a folder of its node"
        if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
            yield f"{workload.name} may be root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{workload.name} may make any call of the kernel"
        for container in workload.containers:
            yield from _loose(workload, container)


def _loose(workload: Workload, container: Part) -> Iterator[str]:
    context = container.get("securityContext", {})
    expected = {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if context != expected:
        yield f"{workload.name}: {container['name']} is not closed"
    if not container.get("resources", {}).get("requests", {}).get("cpu"):
        yield f"{workload.name}: {container['name']} asks for no processor"
    if not container.get("resources", {}).get("limits", {}).get("memory"):
        yield f"{workload.name}: {container['name']} has no limit of memory"
    for mount in container.get("volumeMounts", []):
        # Triton itself only reads what was built for it.
        reads = (mount["mountPath"], container["name"]) == ("/serving", "triton")
        if mount["mountPath"] in WRITABLE and mount.get("readOnly") and not reads:
            yield f"{workload.name}: {container['name']} cannot write {mount['mountPath']}"


@rule
def names_and_quantities_are_such_as_kubernetes_takes(manifests: Manifests) -> Iterator[str]:
    for one in manifests.objects:
        name = one["metadata"]["name"]
        # Pods of a job are named after it and their index; jobs of a CronJob after it and a time.
        most = {"Job": 59, "CronJob": 48}.get(one["kind"], 63)
        if not NAME.fullmatch(name) or len(name) > most:
            yield f"{name_of(one)} has a name that is not taken"
    for workload in manifests.workloads():
        for container in workload.containers:
            yield from _odd_resources(workload, container.get("resources", {}))
        for port in workload.ports().values():
            if not 1024 <= port <= 65535:
                yield f"{workload.name}: port {port} is for root"
        for volume in workload.pod["volumes"]:
            size = volume.get("emptyDir", {"sizeLimit": "0"}).get("sizeLimit")
            if not QUANTITY.fullmatch(str(size)):
                yield f"{workload.name}: {volume['name']} may fill its node"


def _odd_resources(workload: Workload, resources: Part) -> Iterator[str]:
    for what, wanted in resources.get("requests", {}).items():
        try:
            if number(wanted) > number(resources.get("limits", {}).get(what, wanted)):
                yield f"{workload.name} asks for more {what} than it may have"
        except ValueError as error:
            yield f"{workload.name}: {error} is no quantity"


@rule
def an_image_is_one_that_is_known(manifests: Manifests) -> Iterator[str]:
    tags: dict[str, set[str]] = {}
    for workload in manifests.workloads():
        for container in workload.containers:
            reference = container["image"].partition("@")[0]
            repository, _, tag = reference.rpartition(":")
            if not repository or tag in {"", "latest"}:
                yield f"{workload.name}: {container['image']} may be any image"
            tags.setdefault(repository, set()).add(container["image"])
    for repository, images in tags.items():
        if len(images) > 1:
            yield f"{repository} runs as {sorted(images)}"
