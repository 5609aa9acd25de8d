"""Read the videos of a pipeline that are new or changed: digest and probe them, before anything is planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.executors.executors import Executor
from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.load_dataset import load_dataset, synthetic_digests
from reelwright.pipeline.run.make_videos import make_videos
from reelwright.pipeline.run.results import Observer, RunOptions
from reelwright.stages.base.registry import load
from reelwright.storage.errors import InputError
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.schema import note_schema
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store_errors import usable
from reelwright.storage.urls import is_url

_SHOWN = 20


def read_for_run(
    file: PipelineFile,
    observer: Observer,
    options: RunOptions,
    *,
    known: KnownFiles,
    executor: Executor,
    check: Callable[[Dataset], None],
) -> Dataset:
    """The videos, as often tried as asked for; those that are listed are checked before one is read."""
    dataset = None
    for attempt in range(1 + options.retries):
        dataset = read_videos(
            file,
            observer,
            jobs=options.jobs,
            anew=options.retry_failed or attempt > 0,
            quarantined=options.retry_quarantined and attempt == 0,
            known=known if dataset is None else dataset.files,
            executor=executor,
            check=check,
        )
        if not dataset.unread and not (dataset.synthetic is not None and dataset.synthetic.lacks(again=True)):
            break
    assert dataset is not None
    return dataset


def read_videos(
    file: PipelineFile,
    observer: Observer,
    *,
    jobs: int | None = None,
    anew: bool = True,
    quarantined: bool = False,
    make: bool = True,
    known: KnownFiles | None = None,
    executor: Executor | None = None,
    check: Callable[[Dataset], None] | None = None,
) -> Dataset:
    """Digest and probe the videos that are new or changed; with ``anew`` also those that were not usable.

    Those that were not usable too often only with ``quarantined``. Synthetic videos that are missing are made first, by
    ``executor`` where there is one, unless ``make`` is false. ``known`` is the store's table of files, where it was
    just read.

    Returns the videos as they are known then. Raises InputError for files that change while they are read.
    """
    known = known or KnownFiles(file.store.files)
    if make and make_videos(file, observer, known=known, jobs=jobs, again=anew, executor=executor):
        known = KnownFiles(file.store.files)  # it took a while
    dataset = load_dataset(file, known)
    if check is not None:
        check(dataset)
    unread = dataset.to_read(failed=anew, quarantined=quarantined)
    if not unread:
        return dataset
    reporter = observer.indexing(len(unread))
    lock, what = file.store.lock("videos"), f"videos of {file.path.name}"
    with usable(file.store.root), exclusive(lock, report=reporter.note, what=what) as waited:
        if waited:  # another run read some or all of them meanwhile
            dataset = load_dataset(file)
            unread = dataset.new
        if unread:
            note_schema(file.store)
            load("reelwright.stages.index.work:index_videos")(
                [video.path if is_url(video.path) else Path(video.path) for video in unread],
                file.store,
                quick=file.videos.digest == "quick",
                workers=jobs or file.videos.workers,
                timeout_seconds=file.videos.timeout_seconds,
                reporter=reporter,
                digests=synthetic_digests(dataset.synthetic, unread),
                files=dataset.files,
            )
    notes, dataset = dataset.notes, load_dataset(file, dataset.files)
    for note in notes:
        if note not in dataset.notes:
            reporter.note(note)  # of tables that were damaged, and are written anew by now
    if dataset.new:
        raise InputError(
            f"{len(dataset.new):,} videos changed while they were read. Run again when nothing writes to them any more",
            [f"{video.video_id}: {video.path}" for video in dataset.new[:_SHOWN]],
        )
    return dataset
