"""Where Triton's server and the Python environment of its models lie, and whether they can run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dafh.errors import Misconfigured, Reason

PACKAGE = Path(__file__).parent
#: The server, from the wheel that carries it; and what the models' interpreters need. numpy there
#: must be below 2: with 2 the server answers READY and garbles every tensor.
SERVER_REQUIREMENTS = PACKAGE / "triton-server.txt"
PYTHON_REQUIREMENTS = PACKAGE / "triton-python.txt"
#: Written last: an environment without it was interrupted and is made again.
MARKER = "complete.json"

#: What installs a part anew, with the libraries it brings.
TRITON_REPAIR = "python -m dafh_local.install --force"
MILVUS_REPAIR = "pip install --force-reinstall --no-deps milvus-lite==2.5.1"

#: Shared library -> Debian package that holds it.
DEBIAN_PACKAGES = {
    "libc.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libpthread.so.0": "libc6",
    "libpython3.11.so.1.0": "libpython3.11",
    "libpython3.12.so.1.0": "libpython3.12t64",
    "libresolv.so.2": "libc6",
    "librt.so.1": "libc6",
    "libstdc++.so.6": "libstdc++6",
}
_NOT_FOUND = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
_VERSION = re.compile(r"version `(\S+)' not found")


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """An installed (or missing) Triton server environment."""

    home: Path

    @property
    def server(self) -> Path:
        """Folder that the wheel is unpacked into."""
        return self.home / "server"

    @property
    def python(self) -> Path:
        """Virtual environment of the models' interpreters."""
        return self.home / "python"

    @property
    def triton(self) -> Path:
        """Root of Triton's own tree; its files find their libraries relative to themselves."""
        return self.server / "pytriton" / "tritonserver"

    @property
    def binary(self) -> Path:
        """The server program."""
        return self.triton / "bin" / "tritonserver"

    @property
    def backend_files(self) -> tuple[Path, ...]:
        """The files that make up a python backend for this interpreter's version."""
        backend = self.triton / "backends" / "python"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self.triton / "python_backend_stubs" / version / "triton_python_backend_stub"
        return (
            backend / "libtriton_python.so",
            backend / "triton_python_backend_utils.py",
            stub,
        )

    @property
    def library_path(self) -> str:
        """``LD_LIBRARY_PATH`` of the server: where this interpreter's libpython lies."""
        return str(sysconfig.get_config_var("LIBDIR") or "/usr/lib")

    @property
    def expected(self) -> dict[str, str]:
        """What a complete environment says of itself: it is bound to place, Python and pins."""
        pins = SERVER_REQUIREMENTS.read_bytes() + PYTHON_REQUIREMENTS.read_bytes()
        return {
            "home": str(self.home),
            "python": f"{sys.base_prefix} {sys.version}",
            "pins": hashlib.sha256(pins).hexdigest(),
        }

    def is_complete(self) -> bool:
        """Say whether the environment was installed to the end, here, for this Python and pins."""
        try:
            said = json.loads((self.home / MARKER).read_text())
        except (OSError, ValueError):
            return False
        return bool(said == self.expected)

    def require(self) -> None:
        """Refuse an environment that cannot run.

        Raises
        ------
        Misconfigured
            It is not installed, or a shared library is missing.
        """
        if not self.is_complete():
            raise Misconfigured(
                Reason.NOT_INSTALLED,
                "Triton's server environment is not installed, or not for this Python.",
                remedy="Run `python -m dafh_local.install` (`make setup` does).",
            )
        require_libraries(
            "Triton", (self.binary, *self.backend_files), self.library_path, TRITON_REPAIR
        )


def require_milvus() -> None:
    """Refuse a Milvus Lite that cannot run.

    Raises
    ------
    Misconfigured
        It is not installed, or a shared library is missing.
    """
    folder = milvus_library_path()
    require_libraries("Milvus", [folder / "milvus"], str(folder), MILVUS_REPAIR)


def milvus_library_path() -> Path:
    """Return the folder of Milvus Lite's program and libraries.

    Raises
    ------
    Misconfigured
        Milvus Lite is not installed.
    """
    # Located, not imported: the package imports pkg_resources, which current setuptools lack.
    spec = find_spec("milvus_lite")
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(
            Reason.NOT_INSTALLED,
            "Milvus Lite is not installed.",
            remedy="Run `pip install 'dafh[local]'`.",
        )
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def missing_libraries(files: Iterable[Path], library_path: str) -> list[str]:
    """Return the shared libraries that programs need and the loader does not find, sorted."""
    ldd = shutil.which("ldd")
    if ldd is None:
        # Nothing can be said in advance; a loader that fails says so in the part's log.
        return []
    missing: set[str] = set()
    for path in files:
        if not path.exists():
            missing.add(path.name)
            continue
        answer = subprocess.run(
            [ldd, str(path)],
            env={"LD_LIBRARY_PATH": library_path, "PATH": os.defpath, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        missing.update(_NOT_FOUND.findall(answer.stdout))
        missing.update(_VERSION.findall(answer.stdout + answer.stderr))
    return sorted(missing)


def require_libraries(part: str, files: Iterable[Path], library_path: str, repair: str) -> None:
    """Refuse programs whose shared libraries are not all there.

    Raises
    ------
    Misconfigured
        One is missing; the message names it, the remedy its Debian package where it is known.
    """
    missing = missing_libraries(files, library_path)
    if missing:
        raise library_missing(part, missing, repair)


def library_missing(part: str, missing: list[str], repair: str) -> Misconfigured:
    """Return the error that says which libraries `part` lacks and how to get them.

    Parameters
    ----------
    part
        What cannot run.
    missing
        Names of the libraries.
    repair
        The command that installs those anew that come with the part itself.
    """
    packages = sorted({DEBIAN_PACKAGES[name] for name in missing if name in DEBIAN_PACKAGES})
    own = [name for name in missing if name not in DEBIAN_PACKAGES]
    remedies = []
    if packages:
        remedies.append(f"run `apt-get install {' '.join(packages)}`")
    if own:
        remedies.append(f"repair the installation with `{repair}`")
    text = ", or ".join(remedies)
    return Misconfigured(
        Reason.LIBRARY_MISSING,
        f"{part} cannot run: the shared library {', '.join(missing)} is missing.",
        remedy=f"{text[0].upper()}{text[1:]}.",
    )
