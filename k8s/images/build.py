"""Build the images of what runs in the cluster, and a bill of materials (CycloneDX) for each.

Run as ``python k8s/images/build.py gateway jobs --base IMAGE@sha256:…``; `make images` does, and
docs/images.md explains it. What is made besides images is in ``out/images``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).resolve().parent
CHECKOUT = IMAGES.parent.parent
OUT = CHECKOUT / "out" / "images"
CONSTRAINTS = CHECKOUT / "constraints.txt"
#: Where PATH has it; without it every call says so.
PODMAN = shutil.which("podman") or "/usr/bin/podman"
#: Made by `debootstrap.sh` where no registry is reached; never for a release.
LOCAL_BASE = "localhost/dafh-base:bookworm"
#: Label with what an image is made of.
SOURCES = "dafh.sources"
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Image:
    """What an image has."""

    #: Extra of the distribution that is installed; "" for none.
    extra: str
    #: Options of its virtual environment.
    environment: str = ""


#: By the target in the Containerfile; the image is ``dafh-`` and that.
TARGETS = {
    "gateway": Image("gateway"),
    "jobs": Image("jobs"),
    # TensorRT and its Python module are the base's.
    "export": Image("engine", "--system-site-packages"),
    "models": Image(""),
}


def main() -> int:
    """Build what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="+", choices=[*TARGETS])
    parser.add_argument("--base", default=LOCAL_BASE, help="image to build on, by digest")
    options = parser.parse_args()
    if not is_settled(options.base):
        sys.stderr.write(f"{options.base} may change: name it by digest, IMAGE@sha256:….\n")
        return 2
    try:
        for target in options.target:
            build(target, options.base)
            sys.stdout.write(f"{reference(target)}: {describe(target)}\n")
    except subprocess.CalledProcessError as error:
        # What it said itself is on standard error already.
        sys.stderr.write(f"{Path(error.cmd[0]).name} ended with {error.returncode}.\n")
        return 1
    return 0


def is_settled(base: str) -> bool:
    """Say whether a reference names the same image for ever, or one of this machine alone."""
    return base.startswith("localhost/") or bool(PINNED.search(base))


def exists(image: str) -> bool:
    """Say whether this machine has an image."""
    return subprocess.run([PODMAN, "image", "exists", image], check=False).returncode == 0


def is_fresh(target: str) -> bool:
    """Say whether this machine has an image that is made of the checkout as it is now."""
    image = reference(target)
    asked = f'--format={{{{index .Config.Labels "{SOURCES}"}}}}'
    return exists(image) and podman("image", "inspect", asked, image) == sources()


def sources() -> str:
    """Return the SHA-256 of all that images are made of, but for their base."""
    digest = hashlib.sha256()
    places = ("constraints.txt", "pyproject.toml", "k8s/images/Containerfile")
    trees = ("dafh", "export", "model_repository", "services")
    files = [CHECKOUT / place for place in places]
    files += [file for tree in trees for file in sorted((CHECKOUT / tree).rglob("*"))]
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(CHECKOUT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def version() -> str:
    """Return the version of the project, which images are tagged with."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def reference(target: str) -> str:
    """Return the name and tag of an image."""
    return f"localhost/dafh-{target}:{version()}"


def bill(target: str) -> Path:
    """Return where the bill of materials of an image lies."""
    return OUT / f"dafh-{target}.cdx.json"


def build(target: str, base: str) -> None:
    """Build an image, and its bill of materials where Python packages are in it."""
    image = TARGETS[target]
    if base == LOCAL_BASE and not exists(LOCAL_BASE):
        subprocess.run([IMAGES / "debootstrap.sh", LOCAL_BASE], check=True)
    contexts = []
    if image.extra:
        wheels = wheelhouse(image.extra, python_of(base))
        contexts = [f"--build-context=wheels={wheels}"]
    podman(
        "build", "--quiet", f"--file={IMAGES / 'Containerfile'}", f"--target={target}",
        # Kept layers would help nobody: the wheel of DAFH, which comes first, is always new.
        "--network=none", "--pull=missing", "--layers=false", *contexts,
        f"--build-arg=BASE={base}", f"--build-arg=EXTRA={image.extra}",
        f"--build-arg=VENV_OPTIONS={image.environment}",
        f"--label={SOURCES}={sources()}",
        f"--label=org.opencontainers.image.title=dafh-{target}",
        f"--label=org.opencontainers.image.version={version()}",
        f"--label=org.opencontainers.image.base.name={base}",
        "--label=org.opencontainers.image.licenses=Apache-2.0",
        f"--tag={reference(target)}", str(CHECKOUT),
    )  # fmt: skip
    if image.extra:
        write_bill(target, python_of(base))


def wheelhouse(extra: str, python: str) -> Path:
    """Return a folder with the wheels of DAFH, of what an extra needs, and of pip.

    What others made is fetched again only when the pins have changed.

    Parameters
    ----------
    extra
        Of the distribution.
    python
        Version of the Python in the base, such as ``3.11``.
    """
    folder = OUT / "wheels" / f"{extra}-{python}"
    pins = hashlib.sha256(CONSTRAINTS.read_bytes() + (CHECKOUT / "pyproject.toml").read_bytes())
    stamp = folder / ".pins"
    is_fresh = stamp.exists() and stamp.read_text() == pins.hexdigest()
    if not is_fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    # Modules that are gone would still be in it.
    shutil.rmtree(CHECKOUT / "build", ignore_errors=True)
    pip("wheel", "--no-deps", f"--build-constraint={CONSTRAINTS}", f"--wheel-dir={folder}", ".")
    if not is_fresh:
        (made,) = folder.glob("dafh-*.whl")
        pip("download", "--only-binary=:all:", f"--python-version={python}", f"--dest={folder}",
            f"--constraint={CONSTRAINTS}", "pip", f"{made}[{extra}]")  # fmt: skip
        stamp.write_text(pins.hexdigest())
    return folder


def python_of(base: str) -> str:
    """Return the version of the Python in an image, such as ``3.11``."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    return podman("run", "--rm", "--network=none", "--entrypoint=python3", base, "-c", ask)


def write_bill(target: str, python: str) -> None:
    """Write down what Python packages an image has, seen from inside.

    The tool is mounted, so that it is no part of what it lists.
    """
    tool = OUT / f"bom-{python}"
    if not tool.exists():
        pip("install", "--only-binary=:all:", f"--python-version={python}", "--no-compile",
            f"--constraint={CONSTRAINTS}", f"--target={tool}", *bom_requirements())  # fmt: skip
    run = (
        "import runpy, sys; sys.path.append('/tool'); sys.argv[0] = 'cyclonedx-py';"
        "runpy.run_module('cyclonedx_py', run_name='__main__')"
    )
    text = podman(
        "run", "--rm", "--network=none", f"--volume={tool}:/tool:ro", "--entrypoint=python",
        reference(target), "-P", "-c", run, "environment", "--output-reproducible",
        "/opt/dafh/bin/python",
    )  # fmt: skip
    bill(target).write_text(text + "\n")


def bom_requirements() -> list[str]:
    """Return what the extra `bom` names."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["bom"])


def unpacked_bytes(target: str) -> int:
    """Return what an image takes on a node, its base included."""
    return int(podman("image", "inspect", "--format={{.Size}}", reference(target)))


def packed_bytes(target: str) -> int:
    """Return what an image takes in a registry and on its way to a node: its layers, compressed."""
    folder = OUT / f"{target}.oci"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        podman("push", "--quiet", reference(target), f"oci:{folder}")
        blobs = folder / "blobs" / "sha256"
        (entry,) = json.loads((folder / "index.json").read_text())["manifests"]
        manifest = json.loads((blobs / entry["digest"].removeprefix("sha256:")).read_text())
        return sum(layer["size"] for layer in manifest["layers"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(target: str) -> str:
    """Return the size of an image, and how many Python packages its bill names."""
    size = f"{unpacked_bytes(target) / 1e6:.0f} MB"
    if not TARGETS[target].extra:
        return size
    components = json.loads(bill(target).read_text())["components"]
    return f"{size}, {len(components)} Python packages ({bill(target).relative_to(CHECKOUT)})"


def pip(*words: str) -> None:
    """Run pip of this environment in the checkout."""
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], cwd=CHECKOUT, check=True)


def podman(*words: str) -> str:
    """Run podman; return what it printed, without the white space around it."""
    done = subprocess.run([PODMAN, *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
