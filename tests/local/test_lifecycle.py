"""Up, status, down on real servers: what runs is reported and recovered, and gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymilvus import DataType, MilvusClient

from dafh.security.keys import load_key
from dafh.settings import ModelSettings
from dafh.stack import Stack, read_stack
from dafh_local.parts import PARTS
from dafh_local.plan import shared_memory_prefix
from dafh_local.ports import HOST, LISTEN, LOOPBACK, free_port, is_free, port_of
from dafh_local.process import members
from dafh_local.status import look
from dafh_local.triton import SHARED_MEMORY

pytestmark = pytest.mark.stack

DAFH = str(Path(sys.executable).with_name("dafh"))
#: What `dafh doctor` calls the version that is served.
VERSION = f"model version {ModelSettings().model_version}"
Answer = subprocess.CompletedProcess[str]


def dafh(*words: str | Path, **settings: str) -> Answer:
    """Run one command to its end, with settings in its environment."""
    return subprocess.run(
        [DAFH, *map(str, words)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def up(data_dir: Path, *words: str, **settings: str) -> Answer:
    return dafh("up", "--detach", "--port", "0", "--data-dir", data_dir, *words, **settings)


def states(data_dir: Path) -> dict[str, str]:
    answer = dafh("status", "--json", "--data-dir", data_dir)
    return {part["name"]: part["state"] for part in json.loads(answer.stdout)["parts"]}


def running(data_dir: Path) -> list[int]:
    return [member.pid for part in PARTS for member in members(part.name, data_dir)]


def ports(stack: Stack) -> list[int]:
    parts = (stack.gateway, stack.triton, stack.milvus)
    return [port_of(stack.triton_metrics), *(port_of(part.address) for part in parts)]


def regions(data_dir: Path) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"{shared_memory_prefix(data_dir)}*"))


def assert_nothing_left(data_dir: Path, stack: Stack | None = None) -> None:
    assert running(data_dir) == []
    assert regions(data_dir) == []
    assert [port for port in ports(stack) if not is_free(port)] == [] if stack else True
    assert not (data_dir / "stack.json").exists()


def assert_one_sentence(answer: Answer, *parts: str, code: int = 2) -> None:
    assert answer.returncode == code, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    assert "Traceback" not in answer.stderr
    for part in parts:
        assert part in answer.stderr


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """Yield a data directory; whatever runs from it at the end is stopped."""
    # A name that a shell would take apart, as a home directory may have.
    folder = tmp_path / "o'neil's data"
    yield folder
    if running(folder):
        dafh("down", "--data-dir", folder)


def in_foreground(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [DAFH, "up", "--port", "0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """Undo what a shell does to its background jobs, tests among them: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    return pytest.fail(f"ended without saying {words!r}")


def test_ctrl_c_leaves_nothing_and_exits_0(data_dir: Path) -> None:
    with in_foreground(data_dir) as process:
        read_until(process, "Ctrl-C")
        stack = read_stack(data_dir)
        assert len(ports(stack)) == len({port for port in ports(stack) if not is_free(port)})
        # What a terminal does: the signal goes to the whole foreground process group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert_nothing_left(data_dir, stack)


def test_sigterm_while_starting_leaves_nothing_and_exits_130(data_dir: Path) -> None:
    with in_foreground(data_dir) as process:
        until(lambda: members("milvus", data_dir))
        process.terminate()
        assert process.wait(60) == 130
    assert_nothing_left(data_dir)


def test_killed_up_leaves_a_stack_that_status_and_down_manage(data_dir: Path) -> None:
    with in_foreground(data_dir) as process:
        read_until(process, "Ctrl-C")
        process.kill()
    stack = read_stack(data_dir)
    status = dafh("status", "--data-dir", data_dir)
    assert status.returncode == 0, status.stdout
    again = up(data_dir)
    assert again.returncode == 0
    assert again.stdout.startswith("Already running.")
    assert read_stack(data_dir) == stack
    down = dafh("down", "--data-dir", data_dir)
    assert down.returncode == 0
    assert_nothing_left(data_dir, stack)
    status = dafh("status", "--data-dir", data_dir)
    assert_one_sentence(status, "No stack runs from", "`dafh up`")


def test_up_killed_half_way_is_reported_and_cleared(data_dir: Path) -> None:
    with in_foreground(data_dir) as process:
        until(lambda: members("triton", data_dir) and members("milvus", data_dir))
        process.kill()
    status = dafh("status", "--data-dir", data_dir)
    assert status.returncode == 1
    assert dafh("down", "--data-dir", data_dir).returncode == 0
    assert_nothing_left(data_dir)


def gateway_state(data_dir: Path) -> str:
    return look(data_dir).parts[-1].state


def write_row(stack: Stack) -> None:
    with closing(MilvusClient(stack.milvus_uri, timeout=10)) as milvus:
        schema = milvus.create_schema()
        schema.add_field("id", DataType.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("code", DataType.BINARY_VECTOR, dim=64)
        milvus.create_collection("kept", schema=schema, timeout=10)
        milvus.upsert("kept", [{"id": "row", "code": bytes(8)}], timeout=10)


def rows(stack: Stack) -> list[dict[str, Any]]:
    with closing(MilvusClient(stack.milvus_uri, timeout=10)) as milvus:
        index = milvus.prepare_index_params()
        index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
        milvus.create_index("kept", index, timeout=10)
        milvus.load_collection("kept", timeout=10)
        return list(milvus.query("kept", filter="id != ''", output_fields=["id"], timeout=10))


def test_each_killed_part_is_reported_within_5_seconds_and_recovered_alone(data_dir: Path) -> None:
    assert up(data_dir).returncode == 0
    write_row(read_stack(data_dir))
    for name in ("triton", "milvus", "gateway"):
        before = read_stack(data_dir)
        os.kill(getattr(before, name).pid, signal.SIGKILL)
        killed = time.monotonic()
        found = states(data_dir)
        others = [other for other in ("triton", "milvus") if other != name]
        assert found[name] == "down"
        assert {found[other] for other in others} == {"serving"}
        if name != "gateway":
            until(lambda: gateway_state(data_dir) == "waiting", 5)
        assert time.monotonic() - killed < 5

        recovered = up(data_dir)
        assert recovered.stdout.startswith(f"Started {name}."), recovered.stderr
        after = read_stack(data_dir)
        assert ports(after) == ports(before)
        for part in ("triton", "milvus", "gateway"):
            same = getattr(before, part) == getattr(after, part)
            assert same == (part != name)
        assert look(data_dir).healthy
    assert [row["id"] for row in rows(read_stack(data_dir))] == ["row"]
    stack = read_stack(data_dir)
    down = dafh("down", "--json", "--data-dir", data_dir)
    assert json.loads(down.stdout) == {"stopped": ["triton", "milvus", "gateway"]}
    assert_nothing_left(data_dir, stack)


def test_everything_listens_on_loopback_only(stack_data_dir: Path, stack: Stack) -> None:
    inodes = {
        str(descriptor.readlink())
        for pid in running(stack_data_dir)
        for descriptor in Path(f"/proc/{pid}/fd").iterdir()
    }
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == LISTEN and f"socket:[{fields[9]}]" in inodes
    ]
    assert {int(local.partition(":")[2], 16) for local in listening} == set(ports(stack))
    assert {local.partition(":")[0] for local in listening} <= LOOPBACK


def test_keys_and_data_are_readable_by_their_owner_only(stack_data_dir: Path, stack: Stack) -> None:
    assert stack.patient_key_file == stack_data_dir / "keys" / "patient.key"
    load_key(stack.patient_key_file)
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (stack_data_dir, stack_data_dir / "keys", stack.patient_key_file)
    }
    assert list(modes.values()) == [0o700, 0o700, 0o600]


def test_running_stack_with_other_ports_is_not_changed(stack_data_dir: Path, stack: Stack) -> None:
    answer = dafh("up", "--detach", "--port", str(free_port()), "--data-dir", stack_data_dir)
    assert_one_sentence(answer, "already runs", "`dafh down`")
    assert read_stack(stack_data_dir) == stack


@pytest.mark.parametrize("option", ["--triton-port", "--milvus-port", "--triton-metrics-port"])
def test_port_in_use_is_one_sentence_and_starts_nothing(data_dir: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert_one_sentence(up(data_dir, option, port), f"Port {port}", "is in use", option)
    assert_nothing_left(data_dir)


def test_server_that_is_not_installed_is_one_sentence(data_dir: Path, tmp_path: Path) -> None:
    answer = up(data_dir, DAFH_TRITON_HOME=str(tmp_path / "nowhere"))
    assert_one_sentence(answer, "not installed", "python -m dafh_local.install")
    assert_nothing_left(data_dir)


def test_nearly_full_disk_is_one_sentence_and_starts_nothing(data_dir: Path) -> None:
    answer = up(data_dir, DAFH_MINIMUM_FREE_MIB="1000000000")
    assert_one_sentence(answer, "MiB are free", "--data-dir", code=4)
    assert_nothing_left(data_dir)


def test_disk_that_fills_while_starting_stops_what_was_started(data_dir: Path) -> None:
    # The note is the last thing that is written.
    program = """
from dafh import cli, stack
def full(*_):
    with open("/dev/full", "wb", buffering=0) as device:
        device.write(b"x")
stack.write_atomically = full
cli.main()
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, "up", "--detach", "--port", "0", "--data-dir", data_dir],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_one_sentence(answer, "is full", "Make room", code=4)
    # They did run: the logs of all three are there.
    assert {path.name for path in (data_dir / "logs").iterdir()} == {
        "triton.log",
        "milvus.log",
        "gateway.log",
    }
    assert_nothing_left(data_dir)


def test_disk_that_is_really_full_is_one_sentence(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    private_mounts = ["unshare", "--mount", "--map-root-user"]
    mount = f'mount -t tmpfs -o size=48k,mode=700 tmpfs "{data_dir}" '
    probe = [*private_mounts, "sh", "-c", mount]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("this machine lets us mount no tmpfs of our own")
    answer = subprocess.run(
        [
            *(*private_mounts, "sh", "-c", f'{mount} && exec "$@"', "sh"),
            *(DAFH, "up", "--detach", "--port", "0", "--data-dir", str(data_dir)),
        ],
        env={**os.environ, "DAFH_MINIMUM_FREE_MIB": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_one_sentence(answer, "is full", "Make room", code=4)
    assert_nothing_left(data_dir)


def test_doctor_finds_nothing_wrong_beside_a_running_stack(
    stack_data_dir: Path, stack: Stack
) -> None:
    answer = dafh("doctor", "--json", "--data-dir", stack_data_dir)
    findings = {finding["name"]: finding for finding in json.loads(answer.stdout)}
    faults = [finding for finding in findings.values() if finding["level"] == "fault"]
    assert answer.returncode == 0, faults
    for name in ("Triton's server", "Milvus Lite", VERSION, "stack: gateway"):
        assert findings[name]["level"] == "ok"


def test_doctor_says_what_to_do_about_what_is_missing(tmp_path: Path) -> None:
    answer = dafh(
        *("doctor", "--json", "--data-dir", tmp_path / "none"),
        DAFH_TRITON_HOME=str(tmp_path),
        DAFH_MODEL_REPOSITORY=str(tmp_path),
    )
    findings = {finding["name"]: finding for finding in json.loads(answer.stdout)}
    assert answer.returncode == 1
    assert "dafh_local.install" in findings["Triton's server"]["remedy"]
    assert "dafh export repository" in findings[VERSION]["remedy"]
    assert findings["stack"]["level"] == "note"
    assert "dafh up" in findings["stack"]["remedy"]
