"""The plan cache: built once, whole or not there, whatever happens to those who build."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dafh.deadline import Deadline
from dafh.errors import DeadlineExceeded, FailedPrecondition, InvalidInput, Misconfigured, Reason
from dafh_export.engine import BuildOptions, HardwareCompatibility, Target
from dafh_export.model_file import Precision
from dafh_export.plans import DRAFTS, PLANS, RECORD_FILE, PlanCache, key_of, read_record
from dafh_export.scripted import ScriptedBuilder
from dafh_export.serving_repository import assemble
from tests.export.models import tiny_model

OPTIONS = BuildOptions()
#: A builder in a process of its own: cache, model file, what happens before and in the build.
BUILDER = """
import os, signal, sys, time
from pathlib import Path
from dafh.deadline import Deadline
from dafh_export.engine import BuildOptions
from dafh_export.plans import PlanCache
from dafh_export.scripted import ScriptedBuilder
cache, model = Path(sys.argv[1]), Path(sys.argv[2])
during = lambda: None
{script}
builder = ScriptedBuilder(during=during)
folder = PlanCache(cache).ensure(model, builder, BuildOptions(), Deadline.after(30))
print(builder.built, folder)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model.onnx")


def start(cache: Path, model: Path, script: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER.format(script=script), str(cache), str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_overs(cache: Path) -> list[str]:
    """Return what lies about besides finished plans, locks and timings."""
    drafts = [path.name for path in (cache / DRAFTS).iterdir()] if (cache / DRAFTS).exists() else []
    return drafts + [path.name for path in cache.rglob("*.part")]


def test_a_plan_is_built_once_and_found_by_the_next_pod(tmp_path: Path, model: Path) -> None:
    builder = ScriptedBuilder()
    folders = {
        PlanCache(tmp_path / "cache").ensure(model, builder, OPTIONS, Deadline.after(10))
        for _ in range(3)
    }
    assert builder.built == 1
    record = read_record(folders.pop())
    assert not folders
    assert record is not None
    assert (record.tensorrt, record.gpu) == ("11.1.0.106", "Scripted GPU")
    assert left_overs(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "other",
    [
        "gpu",
        "tensorrt",
        "options",
        "precision",
        "model",
    ],
)
def test_whatever_the_key_names_makes_another_plan(tmp_path: Path, model: Path, other: str) -> None:
    cache = PlanCache(tmp_path / "cache")
    first = cache.ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(10))
    target, options, file = Target("11.1.0.106", "Scripted GPU"), OPTIONS, model
    match other:
        case "gpu":
            target = Target(target.tensorrt, "Another GPU")
        case "tensorrt":
            target = Target("11.2.0.1", target.gpu)
        case "options":
            options = BuildOptions(hardware=HardwareCompatibility.AMPERE_PLUS)
        case "precision":
            file = tiny_model(tmp_path / "other.onnx", Precision.FP16)
        case "model":
            file = tiny_model(tmp_path / "other.onnx", scale=2.0)
    builder = ScriptedBuilder(target)
    second = cache.ensure(file, builder, options, Deadline.after(10))
    assert builder.built == 1
    assert second != first
    assert cache.find(key_of(model, Target("11.1.0.106", "Scripted GPU"), OPTIONS)) == first


def test_of_racing_builders_one_builds_and_all_have_the_plan(tmp_path: Path, model: Path) -> None:
    cache = tmp_path / "cache"
    racing = [start(cache, model, "during = lambda: time.sleep(1)") for _ in range(4)]
    said = [process.communicate(timeout=60) for process in racing]
    assert [process.returncode for process in racing] == [0] * 4, said
    counts, folders = zip(*(out.split(maxsplit=1) for out, _ in said), strict=True)
    assert sorted(counts) == ["0", "0", "0", "1"]
    assert len(set(folders)) == 1
    assert left_overs(cache) == []


def test_a_builder_killed_in_the_build_hands_on_to_the_one_that_waits(
    tmp_path: Path, model: Path
) -> None:
    cache, ready = tmp_path / "cache", tmp_path / "ready"
    doomed = start(cache, model, f"during = lambda: (Path({str(ready)!r}).touch(), time.sleep(60))")
    while not ready.exists():
        assert doomed.poll() is None
        time.sleep(0.02)
    waiting = start(cache, model)
    time.sleep(0.3)
    assert waiting.poll() is None
    doomed.kill()
    doomed.communicate()
    out, error = waiting.communicate(timeout=60)
    assert out.startswith("1 "), error
    assert left_overs(cache) == []


def test_a_builder_killed_at_any_write_leaves_nothing_that_counts(
    tmp_path: Path, model: Path
) -> None:
    key = key_of(model, ScriptedBuilder().target(), OPTIONS)
    die = """
written = 0
real = os.fsync
def dying(descriptor):
    global written
    written += 1
    if written == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = dying
"""
    deaths = 0
    for at in range(1, 20):
        cache = tmp_path / f"cache-{at}"
        process = start(cache, model, die.format(at=at))
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        deaths += 1
        # Not there, or whole; and the next one gets it in any case.
        assert not list((cache / PLANS).rglob(RECORD_FILE)) or PlanCache(cache).find(key)
        folder = PlanCache(cache).ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(10))
        assert PlanCache(cache).find(key) == folder
        assert left_overs(cache) == []
    assert deaths >= 6


def test_a_file_beyond_the_quota_is_a_full_volume_and_leaves_nothing(
    tmp_path: Path, model: Path
) -> None:
    cache = tmp_path / "cache"
    # 32 KiB of plan; signal ignored, so that the write fails as on a full quota.
    quota = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, 16 << 10))
"""
    process = start(cache, model, quota)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Misconfigured" in error
    assert "larger or remove old plans" in error
    assert list((cache / PLANS).rglob("*")) == []
    assert left_overs(cache) == []


def test_a_full_volume_leaves_nothing_and_is_said(tmp_path: Path, model: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mount, unmount = shutil.which("mount") or "", shutil.which("umount") or ""
    made = [mount, "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(volume)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("a small volume can only be mounted by root")
    try:
        with pytest.raises(Misconfigured, match="No space left") as caught:
            PlanCache(volume).ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(10))
        assert caught.value.reason is Reason.DISK_FULL
        assert list((volume / PLANS).rglob("*")) == []
        assert left_overs(volume) == []
        subprocess.run([mount, "-o", "remount,size=1m", str(volume)], check=True)
        folder = PlanCache(volume).ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(10))
        assert read_record(folder)
    finally:
        subprocess.run([unmount, str(volume)], check=True)


def test_a_damaged_plan_is_built_anew(tmp_path: Path, model: Path) -> None:
    cache, builder = PlanCache(tmp_path / "cache"), ScriptedBuilder()
    folder = cache.ensure(model, builder, OPTIONS, Deadline.after(10))
    whole = (folder / "model.plan").read_bytes()
    (folder / "model.plan").write_bytes(whole[:-1])
    assert cache.find(key_of(model, builder.target(), OPTIONS)) is None
    assert cache.ensure(model, builder, OPTIONS, Deadline.after(10)) == folder
    assert builder.built == 2
    assert (folder / "model.plan").read_bytes() == whole


def test_a_failed_build_leaves_nothing(tmp_path: Path, model: Path) -> None:
    def refuse() -> None:
        raise FailedPrecondition(Reason.MODEL_NOT_LOADED, "TensorRT cannot build it.")

    cache = tmp_path / "cache"
    with pytest.raises(FailedPrecondition):
        PlanCache(cache).ensure(model, ScriptedBuilder(during=refuse), OPTIONS, Deadline.after(10))
    assert list((cache / PLANS).rglob("*")) == []
    assert left_overs(cache) == []


def test_waiting_for_another_builder_ends_with_the_deadline(tmp_path: Path, model: Path) -> None:
    cache, building, done = tmp_path / "cache", threading.Event(), threading.Event()

    def block() -> None:
        building.set()
        done.wait(30)

    slow = ScriptedBuilder(during=block)
    thread = threading.Thread(
        target=lambda: PlanCache(cache).ensure(model, slow, OPTIONS, Deadline.after(30))
    )
    thread.start()
    assert building.wait(10)
    with pytest.raises(DeadlineExceeded):
        PlanCache(cache).ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(0.5))
    done.set()
    thread.join(30)
    assert slow.built == 1


def test_timings_are_kept_for_the_next_build_on_the_same_gpu(tmp_path: Path, model: Path) -> None:
    cache = PlanCache(tmp_path / "cache")
    cache.ensure(model, ScriptedBuilder(), OPTIONS, Deadline.after(10))
    kept = list((tmp_path / "cache" / "timings").iterdir())
    assert [path.read_bytes() for path in kept] == [b"timings"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for number in (1, 2):
        for precision in (Precision.FP32, Precision.FP16):
            tiny_model(root / "dafh" / str(number) / precision.file, precision, float(number))
    (root / "dafh" / "config.pbtxt").write_text('name: "dafh"\n')
    return root


def test_a_pod_gets_a_repository_of_whole_plans(tmp_path: Path, repository: Path) -> None:
    cache, out, builder = PlanCache(tmp_path / "cache"), tmp_path / "out", ScriptedBuilder()
    for _ in range(2):
        assemble(repository, cache, out, Precision.FP16, builder, deadline=Deadline.after(10))
    assert builder.built == 2
    files = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    assert sorted(files) == [
        "dafh/1/model.plan", "dafh/1/plan.json",
        "dafh/2/model.plan", "dafh/2/plan.json",
        "dafh/config.pbtxt",
    ]  # fmt: skip


def test_what_a_pod_served_stays_when_the_next_build_fails(
    tmp_path: Path, repository: Path
) -> None:
    cache, out = PlanCache(tmp_path / "cache"), tmp_path / "out"
    assemble(repository, cache, out, Precision.FP32, ScriptedBuilder(), deadline=Deadline.after(10))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def refuse() -> None:
        raise FailedPrecondition(Reason.MODEL_NOT_LOADED, "TensorRT cannot build it.")

    failing = ScriptedBuilder(during=refuse)
    with pytest.raises(FailedPrecondition):
        assemble(repository, cache, out, Precision.FP16, failing, deadline=Deadline.after(10))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_precision_that_was_not_published_is_refused_with_those_that_are(
    tmp_path: Path, repository: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"not published in int8.*fp32, fp16"):
        assemble(
            repository,
            PlanCache(tmp_path / "cache"),
            tmp_path / "out",
            Precision.INT8,
            ScriptedBuilder(),
            deadline=Deadline.after(10),
        )
    assert not (tmp_path / "out").exists()
