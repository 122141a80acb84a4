"""What is in the images that were built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dafh.imaging.decode import decode
from dafh.settings import CHECKOUT
from k8s.images import build
from tests.imaging.encoders import ENCODERS, MOST_BITS, picture, write_compressed

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]

#: Bytes of the gateway's layers as a registry keeps and a node fetches them, and unpacked.
MOST_PACKED, MOST_UNPACKED = 400_000_000, 600_000_000
#: Targets with Python in them.
DEPLOYABLES = [target for target, image in build.TARGETS.items() if image.extra]


def run(image: str, *words: str, options: tuple[str, ...] = ()) -> str:
    """Run an image as the chart does; return what it prints."""
    return build.podman(
        "run", "--rm", "--network=none", "--read-only", "--cap-drop=all", "--tmpfs=/tmp",
        *options, image, *words,
    )  # fmt: skip


def test_the_gateway_is_small(images: dict[str, str]) -> None:
    assert build.packed_bytes("gateway") <= MOST_PACKED
    assert build.unpacked_bytes("gateway") <= MOST_UNPACKED


@pytest.mark.parametrize("target", [*build.TARGETS])
def test_it_is_nobody_by_itself(images: dict[str, str], target: str) -> None:
    asked = build.podman("image", "inspect", "--format={{.Config.User}}", images[target])
    assert asked == "10001:10001"


@pytest.mark.parametrize("target", DEPLOYABLES)
def test_its_bill_names_what_is_in_it_as_it_is_pinned(images: dict[str, str], target: str) -> None:
    bill = json.loads(build.bill(target).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {one["name"].lower().replace("_", "-"): one["version"] for one in bill["components"]}
    pins = dict(line.split("==") for line in build.CONSTRAINTS.read_text().splitlines())
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    assert listed.pop("dafh") == build.version()
    assert len(listed) > 20
    assert {name: pins.get(name) for name in listed} == listed
    assert not listed.keys() & {"torch", "pip", "pytest", "cyclonedx-bom"}


@pytest.mark.parametrize(
    ("target", "words", "says"),
    [
        ("jobs", ["--help"], "export-codes"),
        ("jobs", ["index", "--help"], "--journal"),
        ("export", ["export", "--help"], "plans"),
        ("export", ["export", "plans", "--help"], "--cache"),
    ],
)
def test_its_commands_explain_themselves(
    images: dict[str, str], target: str, words: list[str], says: str
) -> None:
    assert says in run(images[target], *words)


#: Tells what is in the files of a folder; each is decoded from the transfer syntax that it is in.
DECODE = """
import json, pathlib
from dafh.imaging.decode import decode
found = {path.name: decode(path.read_bytes(), side=64) for path in pathlib.Path("/data").iterdir()}
print(json.dumps({name: image.content_sha256 for name, image in found.items()}))
"""


@pytest.mark.parametrize("target", DEPLOYABLES)
def test_it_decodes_what_a_whole_installation_does(
    images: dict[str, str], target: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    expected = {}
    for syntax in ENCODERS:
        bits = MOST_BITS.get(syntax, 12)
        data = write_compressed([picture(96, 80, bits)], syntax, bits, {})
        (tmp_path / syntax).write_bytes(data)
        expected[syntax] = decode(data, side=64).content_sha256
    options = (f"--volume={tmp_path}:/data:ro", "--entrypoint=python")
    assert json.loads(run(images[target], "-P", "-c", DECODE, options=options)) == expected


def test_the_gateway_says_what_it_lacks(images: dict[str, str]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(images["gateway"])
    assert caught.value.returncode == 2


def test_the_models_are_copied_whole(images: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    run(images["models"], options=(f"--volume={tmp_path}:/models",))
    source = CHECKOUT / "model_repository"
    files = [
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    ]
    assert len(files) > 10
    assert all((tmp_path / file).read_bytes() == (source / file).read_bytes() for file in files)
