"""What the chart renders, made ready for podman and for servers on loopback.

Each change is one that the container runtime or the test's own servers force; all else is played as
it was rendered.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.images.build import PODMAN, podman
from tests.k8s.chart import Part, Workload

#: User and group of every pod.
GROUP = 10001

#: Secrets by the name of their volume: file names, and what is in them.
Secrets = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class Site:
    """What pods are played against."""

    #: Files that stand in for volumes.
    folder: Path
    secrets: Secrets
    #: Variables that say where servers are, and where to listen.
    addresses: Mapping[str, str]

    def pod(self, workload: Workload) -> Part:
        """Return a pod that podman 4.3 can play.

        Raises
        ------
        KeyError
            A volume has no content here.
        """
        spec: Part = copy.deepcopy(workload.pod)
        # The servers are on loopback, and so the pod must be.
        spec["hostNetwork"] = True
        for container in spec["containers"]:
            # podman leaves them to systemd, which is not everywhere; the test asks them itself.
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                container.pop(probe, None)
            # podman 4.3 takes none on the host's network, where they say nothing anyway.
            container.pop("ports", None)
            for one in container["env"]:
                one["value"] = self.addresses.get(one["name"], one.get("value", ""))
        spec["volumes"] = [self._volume(volume) for volume in spec["volumes"]]
        return spec

    def _volume(self, volume: Part) -> Part:
        """Return an `emptyDir` as it is, and a Secret as files like those that a kubelet makes.

        podman 4.3 would mount it readable by all, and not decoded.
        """
        if "emptyDir" in volume:
            return volume
        folder = self.folder / "secrets" / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.secrets[volume["name"]].items():
            path = folder / name
            path.touch(0o600)
            path.write_bytes(content)
            os.chown(path, 0, GROUP)
            path.chmod(volume["secret"]["defaultMode"])
        return {"name": volume["name"], "hostPath": {"path": str(folder), "type": "Directory"}}

    def run(self, image: str, workload: Workload, volumes: Mapping[str, Path]) -> dict[str, Any]:
        """Run a rendered job, which podman cannot play; return the JSON that it prints.

        Parameters
        ----------
        volumes
            Folders by where they are mounted, for all that is no Secret.
        """
        pod = self.pod_of_job(workload)
        (container,) = pod["containers"]
        secret = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"]}
        words = ["run", "--rm", "--network=host", "--read-only", f"--user={GROUP}:{GROUP}"]
        words += ["--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
        words += [f"--env={one['name']}={one['value']}" for one in container["env"]]
        for mount in container["volumeMounts"]:
            if mount["name"] in secret:
                words.append(f"--volume={secret[mount['name']]}:{mount['mountPath']}:ro")
        words += [f"--volume={folder}:{path}" for path, folder in volumes.items()]
        facts: dict[str, Any] = json.loads(podman(*words, image, *container["args"], "--json"))
        return facts

    def pod_of_job(self, workload: Workload) -> Part:
        """Return a job's pod with its Secrets only."""
        kept = [volume for volume in workload.pod["volumes"] if "secret" in volume]
        return self.pod(Workload(workload.name, workload.kind, workload.labels,
                                 {**workload.pod, "volumes": kept}, workload.spec))  # fmt: skip


class Played:
    """A pod that runs.

    Parameters
    ----------
    name
        Of the pod.
    container
        Of its one container.
    """

    def __init__(self, name: str, container: str) -> None:
        self.name = name
        self.container = f"{name}-{container}"

    def state(self, field: str) -> str:
        """Return a field of what podman knows of the container, such as ``State.Pid``."""
        return podman("inspect", f"--format={{{{.{field}}}}}", self.container)

    def inside(self, program: str) -> str:
        """Run Python in the container; return what it prints."""
        return podman("exec", self.container, "python", "-P", "-c", program)

    @contextmanager
    def stopping(self, seconds: int) -> Iterator[None]:
        """Tell the container to end, as a kubelet does; on return it has."""
        told = subprocess.Popen(
            [PODMAN, "stop", f"--time={seconds}", self.container], stdout=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            told.wait(seconds + 60)

    def logs(self) -> str:
        """Return what the container has written."""
        done = subprocess.run(
            [PODMAN, "logs", self.container],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.stdout


@contextmanager
def playing(spec: Part, labels: Mapping[str, str]) -> Iterator[Played]:
    """Play a pod; leave nothing of it behind."""
    name = f"dafh-test-{secrets.token_hex(4)}"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": spec,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(manifest, file)
        file.flush()
        try:
            podman("play", "kube", "--quiet", file.name)
            yield Played(name, spec["containers"][0]["name"])
        finally:
            podman("pod", "rm", "--force", name)
            for volume in spec["volumes"]:
                if "emptyDir" in volume:
                    podman("volume", "rm", "--force", volume["name"])
