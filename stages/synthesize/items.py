"""The stage that makes the videos of `videos.synthesize`: an item is a video, whose class is drawn on demand."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter, VideoItem, Work, ledger_of
from reelwright.stages.synthesize.config import ACTIONS, PROCEDURE, SourceConfig
from reelwright.stages.synthesize.families.class_files import SUFFIX, class_files, find_classes, in_order
from reelwright.stages.synthesize.families.table import fixed_labels
from reelwright.stages.synthesize.ledger import FRAME_STORE, Made, clear_leftovers
from reelwright.stages.synthesize.make import class_name, make_class, make_sample
from reelwright.stages.synthesize.procedures.write import DatasetParameters, VideoJob, write_annotations, write_video
from reelwright.stages.synthesize.samples import TRUTH, SamplePlan, write_truth
from reelwright.stages.synthesize.source import DEGENERATE, SyntheticSet, number_of, procedure_names
from reelwright.stages.synthesize.spread import spread
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.digests import file_digest, item_key
from reelwright.storage.errors import InputError, StageError
from reelwright.storage.ledger.items import ItemLedger, ItemRow
from reelwright.storage.store import Store, backend_of

_MOST_WORKERS = 8
_CLASSES = "classes"  # folder of the files of classes that are drawn
_Call = tuple[Path, VideoItem, Callable[..., Made], tuple[Any, ...]]  # arguments of `_make`


def run_items(work: Work, reporter: Reporter) -> None:
    """Make all ``work.items``; each is committed in the item ledger after its file is in place.

    A sample depends on the settings, its class and its own number, nothing else. One of which every draw is degenerate
    becomes a row that says so. Raises InputError where the file of a class is not to be seen or not that of the plan,
    StageError where a class cannot be drawn.
    """
    settings = dict(work.config)
    workers = settings.pop("workers") or min(os.cpu_count() or 1, _MOST_WORKERS)
    config, folder = SourceConfig(**settings), Store.at(work.store).output("videos", work.key)
    if config.into == "frames":
        FrameStore.create(folder / FRAME_STORE, {"synthesized": config.generator.content()})
    ledger = ledger_of(work)
    reporter.total(len(work.items), "videos")
    missing, calls = _calls(work, config, folder)
    for row in spread(_make, missing, workers=max(1, min(workers, len(missing)))):
        if not row.is_done:
            raise StageError(
                f"videos.synthesize: {row.message}. Choose another seed, or other settings of {config.family}"
            )
        ledger.commit(row)
    for row in spread(_make, calls, workers=min(workers, len(work.items))):
        ledger.commit(row)
        reporter.item(row)
        reporter.advance(1)
    ledger.compact()


def items_to_make(wanted: SyntheticSet, *, again: bool) -> tuple[VideoItem, ...]:
    """The samples that are to be made, ``again`` as of `SyntheticSet.settled`.

    Nobody else may be at work in the folder: what a killed process left half written, or did not list, is removed.
    Tables that go with the videos are written before these are made. Raises InputError and ConfigError for class files
    that are not right.
    """
    config, left_out = wanted.config, wanted.settled(again=again)
    clear_leftovers(wanted.folder)
    if config.num_classes is not None:
        backend, drawn = wanted.store.backend, wanted.folder / _CLASSES
        listed = {row.file for row in ItemLedger(wanted.store.node(wanted.key)).load().values()}
        backend.delete(drawn / name for name in backend.names(drawn) if f"{_CLASSES}/{name}" not in listed)
    if config.family == PROCEDURE:
        names = list(procedure_names(config))
        write_annotations(wanted.folder, [_job(config, name) for name in dict.fromkeys([*names, *wanted.rows])])
        names = [name for name in names if name not in left_out]
    else:
        files = {} if wanted.class_folder is None else class_files(config.generator, wanted.class_folder)
        plan, done = SamplePlan(config.generator, _labels(config, files)), set(map(number_of, left_out))
        names = [plan.sample(step).name for step in range(1, config.samples + 1) if step not in done]
        if config.family == ACTIONS:
            numbers = {*range(1, config.samples + 1), *map(number_of, wanted.rows)}
            write_truth(wanted.folder / TRUTH, plan, (plan.sample(step).name for step in sorted(numbers)))
    return tuple(VideoItem(wanted.digest_of(name), name, name) for name in names)


def _calls(work: Work, config: SourceConfig, folder: Path) -> tuple[list[_Call], Iterator[_Call]]:
    """What draws the classes of the items that were not drawn yet, and what makes the items.

    Two processes may draw the same class: the files are equal, and get their names when they are whole.
    """
    if config.family == PROCEDURE:
        return [], ((folder, item, write_video, (folder, _job(config, item.video_id))) for item in work.items)
    generator, drawn, files = config.generator, folder / _CLASSES, {}
    if config.class_files is not None:
        if not Path(config.class_files).is_dir():
            raise InputError(
                f"{config.class_files} is not on {socket.gethostname()}: every worker must see the class files of "
                "videos.synthesize. Put them into a folder that all machines share, or let them be drawn (num_classes)"
            )
        files, named = find_classes(Path(config.class_files)), work.spec["inputs"]["class_files"]
        others = [name for name, path in files.items() if file_digest(path) != named.get(name)]
        if others or len(files) < len(named):
            raise InputError(
                f"{config.class_files}: the class files ({', '.join(others[:5]) or 'fewer by now'}) changed after the "
                "plan was made of them, so nothing was made; run again"
            )
    plan = SamplePlan(generator, _labels(config, files))
    samples = [plan.sample(number_of(item.video_id)) for item in work.items]
    missing = []
    if config.num_classes is not None:
        files = {name: drawn / f"{name}{SUFFIX}" for name in in_order({sample.label for sample in samples})}
        gone = {name: path for name, path in files.items() if not backend_of(path).ensure_local(path)}
        items = [VideoItem(item_key(work.key, f"{_CLASSES}/{name}"), name, "") for name in gone]
        missing = [(folder, item, make_class, (drawn, generator, number_of(item.path))) for item in items]
    arguments = ((folder, generator, sample, files.get(sample.label)) for sample in samples)
    return missing, ((folder, item, make_sample, given) for item, given in zip(work.items, arguments, strict=True))


def _labels(config: SourceConfig, classes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of classes in the order in which samples take turns; empty: unlabelled. ``classes`` are of class files."""
    if fixed := fixed_labels(config.generator):
        return fixed
    if config.num_classes is None:
        return tuple(in_order(classes))
    return tuple(in_order(class_name(config.generator, number) for number in range(1, config.num_classes + 1)))


def _job(config: SourceConfig, name: str) -> VideoJob:
    split, _, index = name.partition("_")
    num_train = config.samples - config.num_val - config.num_test
    size = (config.size, config.size)
    parameters = DatasetParameters(
        num_train, config.num_val, config.num_test, config.seed, *size, config.fps, procedure=config.procedure.changed()
    )
    return VideoJob(parameters, split, int(index))


def _make(folder: Path, item: VideoItem, function: Callable[..., Made], arguments: tuple[Any, ...]) -> ItemRow:
    """Make one sample, class or procedure video; runs in a process of its own."""
    made = function(*arguments)
    return ItemRow(
        digest=item.digest,
        status="failed" if made.problem else "ok",
        rows=made.num_frames,
        bytes=made.num_bytes,
        seconds=made.seconds,
        cause=DEGENERATE if made.problem else "",
        message=made.problem,
        name=item.video_id,
        file=(arguments[0] / made.paths[0]).relative_to(folder).as_posix() if made.paths else "",
        content=made.digest,
    )
