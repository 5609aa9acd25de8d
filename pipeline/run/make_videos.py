"""Make the synthetic videos of a pipeline that are missing, and tell of those that were given up."""

from __future__ import annotations

import datetime as dt
import os
import time

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.executors.executors import Executor, LocalExecutor
from reelwright.pipeline.plan.load_dataset import NODE, synthetic_set_of
from reelwright.pipeline.run.results import Failure, Observer
from reelwright.stages.base.registry import load
from reelwright.stages.synthesize.ledger import digest_of_all
from reelwright.stages.synthesize.source import STAGE, SyntheticSet, synthetic_set
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.files import remove
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.ledger.records import Record, last_record, read_record, write_record
from reelwright.storage.ledger.schema import note_schema
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store_errors import usable
from reelwright.storage.urls import is_url

_MOST_WORKERS = 8


def supply_videos(
    file: PipelineFile, observer: Observer, *, known: KnownFiles, jobs: int | None, executor: Executor | None = None
) -> bool:
    """Make the videos that are missing or are not what was made; returns whether there was anything to do.

    By ``executor``, else by processes of this machine.
    """
    wanted = synthetic_set_of(file, known)
    if wanted is None:
        return False
    _remove_altered(wanted, known)
    last = last_record(file.store.project(file.path), NODE)
    is_noted = last is not None and last.key == wanted.key
    if is_noted and not wanted.num_to_make:
        return False
    reporter = observer.making(wanted.num_to_make)
    workers = jobs or file.videos.workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    lock, what = file.store.lock(wanted.key), f"videos of {file.path.name}"
    with usable(file.store.root), exclusive(lock, report=reporter.note, what=what):
        note_schema(file.store)
        wanted = _anew(wanted)  # another run may have made some or all of them meanwhile
        started, num_missing = time.monotonic(), wanted.num_to_make
        if num_missing:
            by = (executor or LocalExecutor()).calls(reporter)
            load("reelwright.stages.synthesize.supply:supply")(wanted, workers=workers, reporter=reporter, by=by)
        _note(file, _anew(wanted), num_made=num_missing, seconds=time.monotonic() - started)
    return True


def synthetic_failures(wanted: SyntheticSet | None) -> list[Failure]:
    """Samples that were given up; they would be so again."""
    if wanted is None:
        return []
    return [
        Failure(
            node=NODE,
            video_ids=(made.name,),
            row=ItemRow(digest=wanted.digest_of(made.name), status="failed", cause="degenerate", message=made.problem),
            is_quarantined=True,
        )
        for made in wanted.given_up
    ]


def _anew(wanted: SyntheticSet) -> SyntheticSet:
    """The same, without what was read of its ledger."""
    return synthetic_set(wanted.config, store=wanted.store, classes=wanted.classes, folder=wanted.class_folder)


def _remove_altered(wanted: SyntheticSet, known: KnownFiles) -> None:
    """A file that is not as it was read is compared with what was made; another content is made again."""
    places = {made.name: [f"{wanted.place}/{path}" for path in made.paths] for made in wanted.made.values()}
    known.look([place for each in places.values() for place in each if is_url(place)])
    for made in wanted.made.values():
        there = [place for place in places[made.name] if not known.is_missing(place)]
        is_changed = bool(there) and known.get(there[0]) is None
        if is_changed and digest_of_all([local_file(place) for place in places[made.name]]) != made.digest:
            remove(wanted.folder / made.paths[0])


def _note(file: PipelineFile, wanted: SyntheticSet, *, num_made: int, seconds: float) -> None:
    """Leave a record: what other pipeline files reach is kept by it, and changes are explained against it."""
    failed = len(wanted.given_up)
    before = read_record(file.store, wanted.key)  # how quick it was stays known when nothing was made now
    record = Record(
        node=NODE,
        stage=STAGE,
        key=wanted.key,
        spec_key=wanted.class_key,
        material=wanted.material,
        items={"total": wanted.config.samples, "done": len(wanted.made) - failed, "failed": failed},
        bytes=sum(made.num_bytes for made in wanted.made.values()),
        seconds=seconds,
        work={"videos": num_made, "seconds": seconds} if num_made or before is None else before.work,
        finished=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    write_record(file.store, record, project=file.store.project(file.path))
