"""Generate `dafh/v1` and the descriptors from the contract, or say that they are stale.

Run as ``python protos/generate.py``, with ``--check`` to write nothing into the tree, with
``--descriptors FILE`` for what buf reads, or with ``--baseline`` to declare the contract as it is
now the one that later ones may not break: after a release, never to make a check pass.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
CHECKOUT = PROTOS.parent
PACKAGE = Path("dafh") / "v1"
#: The contract that later ones may not break.
BASELINE = PROTOS / "baseline.binpb"


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether dafh/v1 is fresh")
    parser.add_argument("--descriptors", type=Path, help="write the descriptors here instead")
    parser.add_argument("--baseline", action="store_true", help="write protos/baseline.binpb")
    arguments = parser.parse_args()
    if arguments.baseline:
        # Without comments, which may change.
        protoc(["--include_imports", f"--descriptor_set_out={BASELINE}"], "*.proto")
        return 0
    if arguments.descriptors is not None:
        write_descriptors(arguments.descriptors)
        return 0
    if not arguments.check:
        write_stubs(CHECKOUT)
        return 0
    stale = stale_stubs()
    if stale:
        sys.stderr.write(f"Stale: {', '.join(stale)}. Run `make protos`.\n")
    return 1 if stale else 0


def write_stubs(root: Path) -> None:
    """Write messages, services and their types below `root`."""
    messages = [f"--python_out={root}", *plugin("mypy", "protoc-gen-mypy", root)]
    services = [f"--grpc_python_out={root}", *plugin("mypy_grpc", "protoc-gen-mypy_grpc", root)]
    protoc(messages, "*.proto")
    protoc(services, "*_service.proto")


def write_descriptors(path: Path) -> None:
    """Write the contract and all it imports, with comments, as one FileDescriptorSet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={path}"]
    protoc(options, "*.proto")


def stale_stubs() -> list[str]:
    """Return the names of files in `dafh/v1` that the contract would make otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        fresh, present = Path(folder), CHECKOUT / PACKAGE
        write_stubs(fresh)
        fresh /= PACKAGE
        names = {path.name for root in (fresh, present) for path in root.glob("*_pb2*")}
        _, differing, missing = filecmp.cmpfiles(fresh, present, names, shallow=False)
    return sorted(differing + missing)


def plugin(name: str, program: str, root: Path) -> list[str]:
    """Return what makes protoc write types below `root` with a program of this environment."""
    path = Path(sys.executable).with_name(program)
    return [f"--plugin={program}={path}", f"--{name}_out=quiet:{root}"]


def protoc(options: list[str], pattern: str) -> None:
    """Run protoc over those files of the contract that `pattern` names.

    The google/api protos come out of the installed package googleapis-common-protos: nothing is
    vendored, nothing is downloaded.
    """
    package = find_spec("google.api.resource_pb2")
    if package is None or package.origin is None:
        raise SystemExit("googleapis-common-protos is not installed: run `make setup`.")
    include = Path(package.origin).parents[2]
    sources = sorted(str(path) for path in (PROTOS / PACKAGE).glob(pattern))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{include}"]
    if (status := subprocess.run([*command, *options, *sources], check=False).returncode) != 0:
        raise SystemExit(status)


if __name__ == "__main__":
    sys.exit(main())
