"""The stage that makes the videos of `videos.synthesize`: an item is a video, or the file of a class that is drawn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter, VideoItem, Work, ledger_of
from reelwright.stages.synthesize.config import ACTIONS, PROCEDURE, SourceConfig
from reelwright.stages.synthesize.families.class_files import SUFFIX, class_files, in_order
from reelwright.stages.synthesize.families.table import fixed_labels
from reelwright.stages.synthesize.ledger import FRAME_STORE, Made, clear_leftovers
from reelwright.stages.synthesize.make import class_name, make_class, make_sample
from reelwright.stages.synthesize.procedures.write import DatasetParameters, VideoJob, write_annotations, write_video
from reelwright.stages.synthesize.samples import SamplePlan
from reelwright.stages.synthesize.source import CLASSES, DEGENERATE, SyntheticSet, number_of, procedure_names
from reelwright.stages.synthesize.spread import spread
from reelwright.stages.synthesize.truth import TRUTH, write_truth
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import InputError, StageError
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store, backend_of

_MOST_WORKERS = 8
_Call = tuple[Callable[..., Made], tuple[Any, ...]]


def run_items(work: Work, reporter: Reporter) -> None:
    """Make all ``work.items``; each is committed in the item ledger after its file is in place.

    A sample depends on the settings, its class and its own number, nothing else. One of which every draw is degenerate
    becomes a row that says so. Raises InputError where the file of a class is not to be seen.
    """
    settings = dict(work.config)
    asked = settings.pop("workers")
    config, folder = SourceConfig(**settings), Store.at(work.store).synthetic(work.key)
    if config.into == "frames":
        FrameStore.create(folder / FRAME_STORE, {"synthesized": config.generator.content()})
    call_of = _procedure_call(folder, config) if config.family == PROCEDURE else _generator_call(folder, config)
    ledger, workers = ledger_of(work), asked or min(os.cpu_count() or 1, _MOST_WORKERS)
    reporter.total(len(work.items), "videos")
    calls = ((folder, item, *call_of(item.video_id)) for item in work.items)
    for row in spread(_make, calls, workers=min(workers, len(work.items))):
        ledger.commit(row)
        reporter.item(row)
        reporter.advance(1)
    ledger.compact()


def items_to_make(wanted: SyntheticSet, *, again: bool) -> Iterator[tuple[VideoItem, ...]]:
    """Items of one use of `run_items` after the other: classes that are drawn, then samples.

    With ``again`` those that were tried too, but for what would be degenerate once more. Tables that go with the videos
    are written before these are made. Raises StageError where a class cannot be drawn.
    """
    config, left_out = wanted.config, wanted.settled(again=again)
    clear_leftovers(wanted.folder)
    if config.family == PROCEDURE:
        names = list(procedure_names(config))
        jobs = [_job(config, name) for name in dict.fromkeys([*names, *wanted.rows_by_name])]
        write_annotations(wanted.folder, jobs)
        yield from _items(wanted, (name for name in names if name not in left_out))
        return
    if config.num_classes is not None:
        drawn = [f"{CLASSES}/{name}" for name in _drawn_classes(config)]
        yield from _items(wanted, (name for name in drawn if name not in left_out))
        rows = wanted.anew().rows_by_name
        broken = next((rows[name] for name in drawn if not rows[name].is_done), None)
        if broken is not None:
            raise StageError(
                f"videos.synthesize: {broken.message}. Choose another seed, or other settings of {config.family}"
            )
    plan, done = (
        SamplePlan(config.generator, _labels(config, wanted.classes)),
        {number_of(name) for name in left_out if not wanted.is_class(name)},
    )
    if config.family == ACTIONS:
        numbers = {*range(1, config.samples + 1), *map(number_of, wanted.rows_by_name)}
        write_truth(wanted.folder / TRUTH, plan, (plan.sample(step).name for step in sorted(numbers)))
    steps = (step for step in range(1, config.samples + 1) if step not in done)
    yield from _items(wanted, (plan.sample(step).name for step in steps))


def _items(wanted: SyntheticSet, names: Iterator[str]) -> Iterator[tuple[VideoItem, ...]]:
    items = tuple(VideoItem(wanted.digest_of(name), name, name) for name in names)
    if items:
        yield items


def _labels(config: SourceConfig, classes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of classes in the order in which samples take turns; empty: unlabelled."""
    if fixed := fixed_labels(config.generator):
        return fixed
    return tuple(in_order(classes)) if config.num_classes is None else tuple(_drawn_classes(config))


def _drawn_classes(config: SourceConfig) -> list[str]:
    assert config.num_classes is not None
    return in_order(class_name(config.generator, number) for number in range(1, config.num_classes + 1))


def _generator_call(folder: Path, config: SourceConfig) -> Callable[[str], _Call]:
    """How a sample or class is made, by its name."""
    generator, drawn = config.generator, folder / CLASSES
    files = {name: drawn / f"{name}{SUFFIX}" for name in _drawn_classes(config)} if config.num_classes else {}
    if config.class_files is not None:
        _check_seen(Path(config.class_files))
        files = class_files(generator, Path(config.class_files))
    plan = SamplePlan(generator, _labels(config, files))

    def call(name: str) -> _Call:
        if config.num_classes is not None and name.startswith(f"{CLASSES}/"):
            return make_class, (drawn, generator, number_of(name))
        sample = plan.sample(number_of(name))
        return make_sample, (folder, generator, sample, files.get(sample.label))

    return call


def _procedure_call(folder: Path, config: SourceConfig) -> Callable[[str], _Call]:
    return lambda name: (write_video, (folder, _job(config, name)))


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
    for path in (value for value in arguments[1:] if isinstance(value, Path)):
        _check_seen(path)
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


def _check_seen(path: Path) -> None:
    """Raise InputError where class files are not on this machine; those of a store in a bucket are fetched."""
    if not (path.is_dir() or backend_of(path).ensure_local(path)):
        raise InputError(
            f"{path} is not on {socket.gethostname()}: every worker must see the class files of videos.synthesize. Put "
            "them into a folder that all machines share, or let them be drawn (num_classes)"
        )
