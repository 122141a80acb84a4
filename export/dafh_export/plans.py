"""Compiled plans on a volume that pods share: each is built once, and is there whole or not at all.

The contract, for whoever mounts the volume, is in ``docs/export.md``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dafh.deadline import Deadline
from dafh.errors import Misconfigured, Reason
from dafh.writing import FULL, write_atomically
from dafh_export.engine import PLAN_FILE, BuildOptions, Built, EngineBuilder, Target
from dafh_export.model_file import Precision, load_model, read_description, read_precision
from dafh_export.provenance import file_digest

RECORD_FILE = "plan.json"
LOG_FILE = "build.log"
LAYERS_FILE = "layers.json"
TIMING_FILE = "timing.cache"
#: Below the cache's root: the finished plans, what is being built, locks, timings.
PLANS, DRAFTS, LOCKS, TIMINGS = "plans", "building", "locks", "timings"
#: Seconds between two looks at a lock that another builder holds.
PATIENCE = 0.2


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan is good for. Any change of it is another plan."""

    model_hash: str
    target: Target
    precision: Precision
    #: Of the very ONNX file and the build options: two calibrations are two plans.
    recipe: str

    @property
    def folder(self) -> Path:
        """Where the plan lies below the cache's root."""
        return Path(
            PLANS,
            self.model_hash,
            f"tensorrt-{_word(self.target.tensorrt)}",
            _word(self.target.gpu),
            f"{self.precision}-{self.recipe}",
        )

    @property
    def name(self) -> str:
        """A file name that tells keys apart."""
        return hashlib.sha256(bytes(self.folder)).hexdigest()[:32]


class PlanRecord(BaseModel):
    """Contents of ``plan.json``; written last, so that a folder with it is complete."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_hash: str
    tensorrt: str
    gpu: str
    precision: Precision
    recipe: str
    #: SHA-256 of ``model.plan``.
    plan: str
    bytes: int
    built: datetime
    seconds: float


def key_of(model_file: Path, target: Target, options: BuildOptions) -> PlanKey:
    """Return the key of the plan that `model_file` becomes on `target`."""
    model = load_model(model_file)
    return PlanKey(
        model_hash=read_description(model).hash,
        target=target,
        precision=read_precision(model),
        recipe=f"{file_digest(model_file)[:12]}-{options.digest}",
    )


class PlanCache:
    """Plans on a volume.

    Parameters
    ----------
    root
        Folder on a volume that has POSIX renames and file locks.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, key: PlanKey) -> Path | None:
        """Return the folder of a complete and undamaged plan; ``None`` where there is none."""
        folder = self._root / key.folder
        record = read_record(folder)
        if record is None or _digest(folder / PLAN_FILE) != record.plan:
            return None
        return folder

    def ensure(
        self, model_file: Path, builder: EngineBuilder, options: BuildOptions, deadline: Deadline
    ) -> Path:
        """Return the folder of the plan, building it where nobody has.

        Of several that want the same plan one builds and the others wait. A builder that was
        killed leaves nothing that counts: its lock falls, and the next one sweeps its draft.

        Raises
        ------
        Misconfigured
            The volume is full or cannot be written, or there is nothing to build with.
        DeadlineExceeded
            The build, or that of another, took too long.
        """
        key = key_of(model_file, builder.target(), options)
        with writing(self._root):
            if (found := self.find(key)) is not None:
                return found
            with self._locked(key, deadline):
                # Whoever held the lock until now may have built it.
                if (found := self.find(key)) is not None:
                    return found
                return self._build(key, model_file, builder, options, deadline)

    def _build(
        self,
        key: PlanKey,
        model_file: Path,
        builder: EngineBuilder,
        options: BuildOptions,
        deadline: Deadline,
    ) -> Path:
        drafts = self._root / DRAFTS
        drafts.mkdir(parents=True, exist_ok=True)
        for left in drafts.glob(f"{key.name}.*"):
            shutil.rmtree(left)
        draft = Path(tempfile.mkdtemp(prefix=f"{key.name}.", dir=drafts))
        try:
            started = time.monotonic()
            with self._timings(key.target, draft) as timings:
                built = builder.build(model_file, options, timings, deadline)
            fill(draft, key, built, time.monotonic() - started)
            return self._publish(draft, key)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _timings(self, target: Target, draft: Path) -> Iterator[Path]:
        """Lend the target's timing cache as a copy; what was added is kept, or nothing is."""
        kept = self._root / TIMINGS / f"{_word(target.tensorrt)}-{_word(target.gpu)}"
        kept.parent.mkdir(exist_ok=True)
        copy = draft / TIMING_FILE
        if kept.exists():
            shutil.copyfile(kept, copy)
        yield copy
        if copy.exists():
            with copy.open("rb") as stream:
                os.fsync(stream.fileno())
            copy.replace(kept)

    def _publish(self, draft: Path, key: PlanKey) -> Path:
        folder = self._root / key.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Ours by the lock, and `find` refused it: damaged.
        if folder.exists():
            shutil.rmtree(folder)
        draft.chmod(0o755)
        draft.rename(folder)
        _sync(folder.parent)
        return folder

    @contextmanager
    def _locked(self, key: PlanKey, deadline: Deadline) -> Iterator[None]:
        """Hold the lock of a key; the kernel lets go of it when its holder dies."""
        locks = self._root / LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / key.name).open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    deadline.remaining("another builder finished the same plan")
                    time.sleep(PATIENCE)
            yield


def fill(folder: Path, key: PlanKey, built: Built, seconds: float) -> PlanRecord:
    """Write a plan and what is known of it to a folder, the record last."""
    (folder / RECORD_FILE).unlink(missing_ok=True)
    write_atomically(folder / PLAN_FILE, built.plan)
    write_atomically(folder / LOG_FILE, built.log.encode())
    write_atomically(folder / LAYERS_FILE, built.layers.encode())
    record = PlanRecord(
        model_hash=key.model_hash,
        tensorrt=key.target.tensorrt,
        gpu=key.target.gpu,
        precision=key.precision,
        recipe=key.recipe,
        plan=hashlib.sha256(built.plan).hexdigest(),
        bytes=len(built.plan),
        built=datetime.now(UTC),
        seconds=round(seconds, 3),
    )
    write_atomically(folder / RECORD_FILE, f"{record.model_dump_json(indent=2)}\n".encode())
    _sync(folder)
    return record


def read_record(folder: Path) -> PlanRecord | None:
    """Return what is known of a plan; ``None`` where the folder is not a complete one."""
    try:
        return PlanRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Say what a full or unwritable volume means."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL
        raise Misconfigured(
            Reason.DISK_FULL if full else Reason.SETTING_INVALID,
            f"The plan cache {root} cannot be written ({error.strerror}).",
            remedy="Make the volume larger or remove old plans."
            if full
            else "Mount a volume that this user may write and that has file locks.",
        ) from error


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except FileNotFoundError:
        return ""


def _word(text: str) -> str:
    """Return text as one file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unknown"


def _sync(folder: Path) -> None:
    """Make a rename outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
