"""A job over a source: what it is to do, and doing it; for `dafh index` and `dafh reindex`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from dafh.errors import InvalidInput, Reason, Unavailable
from dafh.imaging.image import IMAGING_VERSION, PatientKeyer
from dafh.imaging.outline import outline
from dafh.imaging.pool import DecoderPool
from dafh.index.case import Coding
from dafh.settings import DecodeSettings, load
from dafh_jobs.decoding import Decoding
from dafh_jobs.deployment import Servers, soon
from dafh_jobs.journal import Journal
from dafh_jobs.pace import Pace, Stage
from dafh_jobs.pipeline import Pipeline
from dafh_jobs.progress import Shown
from dafh_jobs.report import rows_of, tallied, write_report
from dafh_jobs.selection import Selection, Survey
from dafh_jobs.settings import JobSettings
from dafh_jobs.shard import WHOLE, Shard
from dafh_jobs.sources import Entry, LabelTable, count, entries, require_there
from dafh_jobs.stopping import Abandoned, Stopping
from dafh_jobs.storing import Store, Storing


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be taken from where."""

    #: "indexing": what progress and messages call it.
    title: str
    sources: tuple[str, ...]
    tenant: str
    archive: str
    labels: LabelTable = field(default_factory=lambda: LabelTable({}))
    selection: Selection = field(default_factory=Selection)
    shard: Shard = WHOLE
    #: ``None`` keeps it no longer than the run.
    journal: Path | None = None
    #: Folder for the report; ``None`` for one that is only told.
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a job is to work."""

    decode: DecodeSettings = field(default_factory=lambda: load(DecodeSettings))
    job: JobSettings = field(default_factory=lambda: load(JobSettings))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job over its source.

    Parameters
    ----------
    task
        What is to be done.
    servers
        The servers.
    coding
        Of the codes that are made.
    created
        Which archive of that name it is: one that was made again has none of the former's cases.
    """

    task: Task
    servers: Servers
    coding: Coding
    created: int | str
    stopping: Stopping
    console: Console
    settings: Settings = field(default_factory=Settings)
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        """Count from nothing."""
        decoders, batches = self.settings.decode.decode_workers, self.settings.job.batches
        # Writes to the index take turns.
        stages = {Stage.READ: decoders, Stage.DECODE: decoders, Stage.ENCODE: batches}
        object.__setattr__(self, "pace", Pace({**stages, Stage.INDEX: 1}))

    def through(self, store: Store) -> dict[str, Any]:
        """Take the source through; return the facts of the report.

        Raises
        ------
        DafhError
            The job cannot go on; run again, it goes on where it was.
        """
        task, key = self.task, self.servers.deployment.key
        self.stopping.begun = True
        with ExitStack() as stack:
            journal = Journal(task.journal, key, self._context())
            stack.callback(journal.close)
            shown = stack.enter_context(Shown(task.title, self.pace, self.console))
            survey = stack.enter_context(Survey()) if task.selection.needs_survey else None
            finished = True
            if survey is not None:
                shown.say("looking through the source for its series")
                finished = look_through(self._entries(), survey, self.settings, self.stopping.event)
            if finished:
                finished = self._work(store, journal, survey, shown, stack)
            rows, about = rows_of(journal.records()), self._about(finished)
            return write_report(task.report, rows, about) if task.report else tallied(rows, about)

    def _work(
        self,
        store: Store,
        journal: Journal,
        survey: Survey | None,
        shown: Shown,
        stack: ExitStack,
    ) -> bool:
        task, decode, stop = self.task, self.settings.decode, self.stopping.event
        keyer = PatientKeyer(self.servers.deployment.key, task.tenant)
        decoders = DecoderPool(workers=decode.decode_workers, keyer=keyer, policy=decode.policy)
        stack.callback(decoders.close)
        over = threading.Event()
        decoding = Decoding(
            decoders=decoders,
            journal=journal,
            side=self.servers.encoders.describe(self.coding.model_version).side,
            workers=decode.decode_workers,
            most=decode.limits.request_bytes,
            pace=self.pace,
            selection=task.selection,
            survey=survey,
            shard=task.shard,
            over=over,
        )
        stack.callback(decoding.close)
        storing = Storing(
            store,
            abreast=self.settings.job.batches,
            patience=self.settings.job.server_patience,
            stops=(stop, over),
            tell=shown.say,
        )
        stack.callback(storing.close)
        # Last to come, first to go: nobody waits for a server when the job is over.
        stack.callback(over.set)
        counting = threading.Thread(target=self._count, args=(over,), daemon=True)
        counting.start()
        pipeline = Pipeline(
            decoding, storing, journal, self.pace, stop, shown.show, self._require_sources
        )
        self.pace.begin()
        return pipeline.run(self._entries())

    def _entries(self) -> Iterator[Entry]:
        # Told to stop while a store does not answer: there are no more.
        with suppress(Abandoned):
            yield from entries(self.task.sources, self.settings.decode.limits, self.task.labels)

    def _count(self, over: threading.Event) -> None:
        self.pace.total = count(self.task.sources, over)

    def _require_sources(self) -> None:
        """Stop where a whole source is gone, and not one file of it."""
        try:
            require_there(self.task.sources)
        except InvalidInput as error:
            raise Unavailable(
                Reason.SOURCE_UNREADABLE,
                f"{error.message} It was there when the job began.",
                remedy="Mount it again, then run the same command: it goes on where it was.",
                subject="source",
            ) from None

    def _context(self) -> str:
        """Return all that decides on the outcome of a file but the file itself."""
        task, decode = self.task, self.settings.decode
        return json.dumps(
            {
                "title": task.title,
                "tenant": task.tenant,
                "archive": task.archive,
                "created": self.created,
                "coding": self.coding.key,
                "imaging_version": IMAGING_VERSION,
                "policy": asdict(decode.policy),
                "selection": task.selection.text,
                "shard": str(task.shard),
            },
            sort_keys=True,
        )

    def _about(self, finished: bool) -> dict[str, Any]:
        archives = self.servers.archives
        live = archives.get(self.task.archive, soon()).live if finished else None
        return {
            "tenant": self.task.tenant,
            "archive": self.task.archive,
            "model_version": self.coding.model_version,
            "model_hash": self.coding.model_hash,
            "bits": self.coding.bits,
            "shard": str(self.task.shard),
            "complete": finished,
            # Also of other sources; without those that were erased, whatever a journal says.
            "cases": archives.rows(live).count(soon(), strong=True) if live else None,
            "seconds": round(self.pace.seconds, 3),
            "known": self.pace.known,
            # Who did not come to the end cannot tell.
            "labels_of_no_file": self.task.labels.of_no_file if finished else 0,
            # Of this run: what a former one did took no time.
            "files_per_second": round(self.pace.rate, 2),
            "images_per_second": round(self.pace.images / max(self.pace.seconds, 1e-9), 2),
            "stages": {name: round(share, 3) for name, share in self.pace.shares.items()},
            "slowest": self.pace.slowest,
        }


def look_through(
    found: Iterator[Entry], survey: Survey, settings: Settings, stop: threading.Event
) -> bool:
    """Take all instances of a source into account; say whether it came to the end."""
    most = settings.decode.limits.request_bytes
    for entry in found:
        if stop.is_set():
            return False
        try:
            known = outline(entry.read(most + 1).beginning, settings.decode.policy)
        except (OSError, InvalidInput):
            # Whoever decodes it says why.
            continue
        except Abandoned:
            return False
        if known is not None:
            survey.add(known)
    return True
