"""Make the synthetic videos of a pipeline that are missing, and read those that are new or changed: digest and probe.

All before anything is planned. Making is a stage like others, whose items become the videos.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile
from reelwright.pipeline.executors.executors import Executor, LocalExecutor
from reelwright.pipeline.executors.progress_file import reporting
from reelwright.pipeline.plan.data_warnings import check_shares
from reelwright.pipeline.plan.dataset import Dataset, load_dataset
from reelwright.pipeline.plan.synthetic import NODE, synthetic_set_of
from reelwright.pipeline.run.results import Observer, RunOptions
from reelwright.stages.base.registry import load
from reelwright.stages.synthesize.source import STAGE, SyntheticSet
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.digests import files_digest
from reelwright.storage.errors import InputError
from reelwright.storage.files import remove
from reelwright.storage.ledger.digest_cache import KnownFiles, VideoProbe
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.ledger.records import Record, last_record, note_schema, read_record, write_record
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import Store, is_url
from reelwright.storage.store_errors import usable
from reelwright.storage.tables.manifest import ManifestVideo

_SHOWN = 20


def read_for_run(
    file: PipelineFile,
    observer: Observer,
    options: RunOptions,
    *,
    found: Dataset | None = None,
    executor: Executor,
    check: Callable[[Dataset], None],
) -> Dataset:
    """The videos, as often tried as asked for; those that are listed are checked before one is read.

    ``found`` are the videos as they are known now, of a pipeline that makes none, where they were just looked at.
    """
    dataset = found
    for attempt in range(1 + options.retries):
        dataset = read_videos(
            file,
            observer,
            jobs=options.jobs,
            anew=options.retry_failed or attempt > 0,
            quarantined=options.retry_quarantined and attempt == 0,
            found=dataset if file.videos.synthesize is None else None,
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
    found: Dataset | None = None,
    executor: Executor | None = None,
    check: Callable[[Dataset], None] | None = None,
) -> Dataset:
    """Digest and probe the videos that are new or changed; with ``anew`` also those that were not usable.

    Those that were not usable too often only with ``quarantined``. Synthetic videos that are missing are made first, by
    ``executor`` where there is one, unless ``make`` is false. ``found`` as of `read_for_run`.

    Returns the videos as they are known then. Raises InputError for files that change while they are read.
    """
    dataset = found
    if dataset is None:
        files = KnownFiles(file.store.files)
        if make and _make_videos(file, observer, known=files, jobs=jobs, again=anew, executor=executor):
            files = KnownFiles(file.store.files)  # it took a while
        dataset = load_dataset(file, files)
    (check_shares if check is None else check)(dataset)
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
                digests=_synthetic_digests(dataset.synthetic, unread),
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


def settled_probes(dataset: Dataset, store: Store) -> dict[str, VideoProbe]:
    """The probes; of videos that only decoding tells, what it has told since they were read."""
    about = {digest: probe for digest, probe in dataset.probes.items() if not probe.is_exact}
    return dataset.probes | (load("reelwright.stages.index.work:update_probes")(store, about) if about else {})


def _synthetic_digests(wanted: SyntheticSet | None, videos: Sequence[ManifestVideo]) -> dict[str, str] | None:
    """What stands for the contents of synthetic videos, by path; None for others."""
    return None if wanted is None else {video.path: wanted.digest_of(video.video_id) for video in videos}


def _make_videos(
    file: PipelineFile,
    observer: Observer,
    *,
    known: KnownFiles,
    jobs: int | None,
    again: bool,
    executor: Executor | None = None,
) -> bool:
    """Make the videos that are missing or are not what was made; returns whether there was anything to do.

    By ``executor``, else by processes of this machine. With ``again`` those that could not be made are tried once more.
    """
    wanted = _look(file, known)
    if wanted is None:
        return False
    _remove_altered(wanted, known)
    last = last_record(file.store.project(file.path), NODE)
    is_noted = last is not None and last.key == wanted.key
    if is_noted and not wanted.lacks(again=again):
        return False
    reporter = observer.making(wanted.num_to_make)
    lock, what = file.store.lock(wanted.key), f"videos of {file.path.name}"
    with usable(file.store.root), exclusive(lock, report=reporter.note, what=what):
        note_schema(file.store)
        wanted = _look(file, known)  # another run may have made some or all of them meanwhile
        assert wanted is not None
        started, num_missing = time.monotonic(), wanted.num_to_make
        if wanted.lacks(again=again):
            items = load("reelwright.stages.synthesize.items:items_to_make")(wanted, again=again)
            with reporting(reporter, file.store, key=wanted.key, node=NODE, items=items) as live:
                work = wanted.work(items, node=NODE, workers=jobs or file.videos.workers)
                (executor or LocalExecutor()).items(work, live)
            ItemLedger(file.store.node(wanted.key)).compact()
            wanted = _look(file, known)
            assert wanted is not None
        _record_made(file, wanted, num_made=num_missing, seconds=time.monotonic() - started)
    return True


def _look(file: PipelineFile, known: KnownFiles) -> SyntheticSet | None:
    """What is asked for, and what is there now."""
    file.store.backend.forget()
    return synthetic_set_of(file, known)


def _remove_altered(wanted: SyntheticSet, known: KnownFiles) -> None:
    """A file that is not as it was read is compared with what was made; another content is made again."""
    places = {f"{wanted.place}/{row.file}": row for row in wanted.made.values() if row.is_done}
    known.look([place for place in places if is_url(place)])
    for place, row in places.items():
        is_changed = not known.is_missing(place) and known.get(place) is None
        if is_changed and files_digest([local_file(place)]) != row.content:
            remove(wanted.folder / row.file)


def _record_made(file: PipelineFile, wanted: SyntheticSet, *, num_made: int, seconds: float) -> None:
    """Leave a record: what other pipeline files reach is kept by it, and changes are explained against it."""
    failed = len(wanted.given_up)
    before = read_record(file.store, wanted.key)  # how quick it was stays known when nothing was made now
    record = Record(
        node=NODE,
        stage=STAGE,
        key=wanted.key,
        spec_key=wanted.key,
        material=wanted.material,
        items={"total": wanted.config.samples, "done": len(wanted.made) - failed, "failed": failed},
        bytes=sum(row.bytes for row in wanted.made.values()),
        seconds=seconds,
        work={"videos": num_made, "seconds": seconds} if num_made or before is None else before.work,
        finished=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    )
    write_record(file.store, record, project=file.store.project(file.path))
