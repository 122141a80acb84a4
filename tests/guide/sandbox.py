"""Where a reader of the documentation would type: a folder with images, and a stack of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dafh.imaging.phantom import phantoms
from dafh_local.ports import free_port

from .fences import BASH, Fence

#: Where the documentation says that the gateway listens.
ADDRESS = "127.0.0.1:50051"
#: Seconds that a block may take.
PATIENCE = 100


class Sandbox:
    """A folder with a few images, and a stack of its own: where a reader would type."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = {f"DAFH_{part}_PORT": str(free_port()) for part in ("TRITON", "MILVUS", "GATEWAY")}
        self.address = f"127.0.0.1:{ports['DAFH_GATEWAY_PORT']}"
        self.settings = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DAFH_")},
            **ports,
            "DAFH_TRITON_METRICS_PORT": str(free_port()),
            "HOME": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        # Of other patients, all of them; the first one is asked about.
        first, *others = phantoms(24, 5)
        (folder / "some-image.dcm").write_bytes(first.data)
        (folder / "images").mkdir()
        for phantom in others:
            (folder / "images" / phantom.file_name).write_bytes(phantom.data)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])

    def run(self, fence: Fence, seconds: float = PATIENCE) -> None:
        """Run a block as it stands, but for the address."""
        text = fence.text.replace(ADDRESS, self.address)
        arguments = [word.replace(ADDRESS, self.address) for word in fence.arguments]
        program = {"sh": [BASH, "-euo", "pipefail", "-s", "--"], "python": [sys.executable, "-"]}
        done = subprocess.run(
            [*program[fence.language], *arguments],
            cwd=self.folder, env=self.settings, input=text, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{fence}\n{done.stdout}\n{done.stderr}"


def typed(text: str) -> Fence:
    """Return commands that stand in no page."""
    return Fence("", 0, "sh", text, "", ())
