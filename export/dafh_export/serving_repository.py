"""What a Triton pod loads: the configuration, and of every version a plan that is whole."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dafh.deadline import Deadline
from dafh.encoding.port import MODEL
from dafh.errors import FailedPrecondition, InvalidInput, Reason
from dafh_export.engine import PLAN_FILE, BuildOptions, EngineBuilder
from dafh_export.model_file import Precision
from dafh_export.plans import RECORD_FILE, PlanCache, read_record, writing
from dafh_export.provenance import file_digest

CONFIG_FILE = "config.pbtxt"


def assemble(
    repository: Path,
    cache: PlanCache,
    out: Path,
    precision: Precision,
    builder: EngineBuilder,
    *,
    versions: Sequence[int] = (),
    options: BuildOptions | None = None,
    deadline: Deadline,
) -> list[Path]:
    """Make a model repository of plans at `out`, building what the cache lacks.

    Parameters
    ----------
    repository
        Model repository that `dafh export repository` wrote; only read.
    cache
        Plans on a volume.
    out
        Becomes the model repository of a Triton server. It appears when all of it is there; until
        then, and when this fails, what was there before stays.
    precision
        Which of the published model files to build from.
    builder
        What builds.
    versions
        Which; all by default.
    options
        How to build.
    deadline
        By when all must be built.

    Returns
    -------
    list[Path]
        The folders of the plans in the cache.

    Raises
    ------
    InvalidInput
        A version is not there, or not in this precision.
    Misconfigured
        There is nothing to build with, or the volume cannot be written.
    FailedPrecondition
        A plan is not the one that its record names.
    """
    source = repository / MODEL
    chosen = sorted(versions) or _numbers(source)
    files = {version: _model_file(source, version, precision) for version in chosen}
    plans = {
        version: cache.ensure(file, builder, options or BuildOptions(), deadline)
        for version, file in files.items()
    }
    draft, old = out / f".{MODEL}.part", out / f".{MODEL}.old"
    with writing(out):
        for path in (draft, old):
            shutil.rmtree(path, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            for version, plan in plans.items():
                _copy(plan, draft / str(version))
            shutil.copyfile(source / CONFIG_FILE, draft / CONFIG_FILE)
            if (out / MODEL).exists():
                (out / MODEL).rename(old)
            draft.rename(out / MODEL)
        finally:
            for path in (draft, old):
                shutil.rmtree(path, ignore_errors=True)
    return list(plans.values())


def _numbers(source: Path) -> list[int]:
    folders = source.iterdir() if source.is_dir() else ()
    numbers = sorted(int(path.name) for path in folders if path.name.isdigit())
    if not numbers:
        raise InvalidInput(
            Reason.MODEL_NOT_FOUND,
            f"There is no version of {MODEL} in {source.parent}.",
            remedy="Publish one with `dafh export repository`.",
        )
    return numbers


def _model_file(source: Path, version: int, precision: Precision) -> Path:
    path = source / str(version) / precision.file
    if not path.is_file():
        there = [one for one in Precision if (path.parent / one.file).is_file()]
        raise InvalidInput(
            Reason.MODEL_NOT_FOUND,
            f"Version {version} is not published in {precision}.",
            remedy=f"It is in {', '.join(there)}." if there else "Name another with --version.",
            subject="precision",
        )
    return path


def _copy(plan: Path, folder: Path) -> None:
    folder.mkdir()
    for file in (PLAN_FILE, RECORD_FILE):
        shutil.copyfile(plan / file, folder / file)
    record = read_record(folder)
    if record is None or file_digest(folder / PLAN_FILE) != record.plan:
        raise FailedPrecondition(
            Reason.MODEL_NOT_LOADED,
            f"The plan in {plan} is damaged.",
            remedy="Run it again: a damaged plan is built anew.",
        )
