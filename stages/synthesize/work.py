"""Make a synthetic data set: what is missing of it, on several processes, until there is enough or the time is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.config import ACTIONS, LABEL_PARTS, VERSION, SynthesizeConfig
from reelwright.stages.synthesize.families.class_files import class_files
from reelwright.stages.synthesize.families.ifs import NUM_STILLS
from reelwright.stages.synthesize.families.table import fixed_labels
from reelwright.stages.synthesize.ledger import (
    FRAME_STORE,
    LOCK,
    MANIFEST,
    REPORT,
    Made,
    append,
    claim,
    clear_leftovers,
    finished,
    report_of,
    write_manifest,
)
from reelwright.stages.synthesize.make import make_class, make_sample
from reelwright.stages.synthesize.samples import TRUTH, Sample, SamplePlan, write_truth
from reelwright.stages.synthesize.source import number_of
from reelwright.stages.synthesize.spread import spread
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.digests import file_digest
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import write_json
from reelwright.storage.locks.locks import exclusive

__all__ = ["VERSION", "Effort", "SynthesisResult", "synthesize", "synthesize_classes"]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is made and by how many. At least one of ``num_samples`` and ``seconds`` is needed."""

    num_samples: int | None = None  # videos, or images in the still mode, in all (finished ones count)
    seconds: float | None = None  # of this call; samples that were begun are finished
    workers: int = 1
    report_every: int = 50  # samples between two lines about rate, time left and sizes


@dataclass(frozen=True, kw_only=True)
class SynthesisResult:
    """What there is at the end."""

    folder: Path
    num_new: int
    num_found: int  # finished before this call
    report: dict[str, Any]

    @property
    def manifest(self) -> Path:
        """Where the table of videos is."""
        return self.folder / MANIFEST

    @property
    def num_given_up(self) -> int:
        """Samples without a single draw that was not degenerate."""
        return len(self.report["given_up"])


def synthesize(
    folder: Path,
    config: SynthesizeConfig,
    *,
    effort: Effort,
    reporter: Reporter,
    classes: Path | None = None,
) -> SynthesisResult:
    """Make samples into ``folder`` until there are enough of them or the time is over, and write the tables.

    ``classes`` is a folder of class files: videos are then instances of these classes and labelled so. A sample
    depends on the settings, its class and its own number, nothing else; finished ones are kept. A killed call leaves
    nothing that looks whole, and the same call goes on from there.

    Raises ConfigError for settings that do not go together, InputError for a folder or a class file that is not right.
    """
    if effort.num_samples is None and effort.seconds is None:
        raise ConfigError("how much? Give a number of samples, a time such as 2h30m, or both")
    files = {} if classes is None else class_files(config, classes)
    with exclusive(folder / LOCK, report=reporter.note):
        claim(folder, {**_record(config), "classes": {name: file_digest(path) for name, path in files.items()}})
        clear_leftovers(folder)
        if config.into == "frames":
            FrameStore.create(folder / FRAME_STORE, {"synthesized": config.content()})
        plan = SamplePlan(config, fixed_labels(config) or tuple(files))
        return _make_samples(folder, plan, files, effort, reporter)


def synthesize_classes(
    folder: Path,
    config: SynthesizeConfig,
    *,
    num_classes: int,
    workers: int,
    reporter: Reporter,
) -> SynthesisResult:
    """Draw ``num_classes`` classes into class files `<n>.npz` (fractals: `<n>-<variation>.npz`).

    A class whose own video is degenerate is drawn again. Raises ConfigError where classes are fixed.
    """
    if known := fixed_labels(config):
        raise ConfigError(
            f"{config.family} has no class files: its {len(known)} classes are fixed, and every video has a label"
        )
    with exclusive(folder / LOCK, report=reporter.note):
        claim(folder, {**_record(config), "class_files": True})
        clear_leftovers(folder)
        found = finished(folder)
        numbers = {made.name.split("-")[0] for made in found.values()}
        missing = [number for number in range(1, num_classes + 1) if str(number) not in numbers]
        reporting = _Reporting(reporter, Effort(num_samples=num_classes), len(found), unit="classes")
        calls = ((folder, config, number) for number in missing)
        for made in spread(make_class, calls, workers=min(workers, max(1, len(missing)))):
            append(folder, made)
            reporting.take(made)
        everything = [*found.values(), *reporting.made]
        write_json(folder / REPORT, report_of(everything))
    return SynthesisResult(
        folder=folder, num_new=len(reporting.made), num_found=len(found), report=report_of(everything)
    )


def _make_samples(
    folder: Path, plan: SamplePlan, files: dict[str, Path], effort: Effort, reporter: Reporter
) -> SynthesisResult:
    found = finished(folder)
    images = NUM_STILLS if plan.config.is_still else 1  # of a draw
    count = None if effort.num_samples is None else -(-effort.num_samples // images)
    reporting = _Reporting(reporter, effort, 0, unit="sets" if plan.config.is_still else "videos", total=count)
    kept: list[Made] = []

    def calls() -> Iterator[tuple[Path, SynthesizeConfig, Sample, Path | None]]:
        started, step = time.monotonic(), 0
        while count is None or step < count:
            step += 1
            sample = plan.sample(step)
            if sample.name in found:
                kept.append(replace(found[sample.name], split=sample.split))  # of the call, not of the files
                reporting.skip()
            elif effort.seconds is None or time.monotonic() - started < effort.seconds:
                yield folder, plan.config, sample, files.get(sample.label)
            elif count is None:
                return

    workers = effort.workers if count is None else max(1, min(effort.workers, count - len(found)))
    try:
        for made in spread(make_sample, calls(), workers=workers):
            append(folder, made)
            reporting.take(made)
    finally:
        everything = sorted([*kept, *reporting.made], key=lambda made: number_of(made.name))
        write_manifest(folder, everything, parts=LABEL_PARTS.get(plan.config.family, ()))
        if plan.config.family == ACTIONS:
            write_truth(folder / TRUTH, plan, (made.name for made in everything))
        write_json(folder / REPORT, report_of(everything))
    return SynthesisResult(
        folder=folder, num_new=len(reporting.made), num_found=len(kept), report=report_of(everything)
    )


def _record(config: SynthesizeConfig) -> dict[str, Any]:
    return {"generator": "reelwright synthesize", "version": VERSION, **config.content()}


class _Reporting:
    """Counts what is done, and says now and then how fast it goes, how long it takes and how large it gets."""

    def __init__(
        self, reporter: Reporter, effort: Effort, num_found: int, *, unit: str, total: int | None = None
    ) -> None:
        self.made: list[Made] = []
        self._reporter, self._effort, self._unit = reporter, effort, unit
        self._total = effort.num_samples if total is None else total
        self._done = num_found
        self._bytes = 0
        self._started = time.monotonic()
        if self._total is not None:
            reporter.total(self._total, unit)
        if num_found:
            reporter.advance(num_found)

    def skip(self) -> None:
        """One that was there."""
        self._done += 1
        self._reporter.advance(1)

    def take(self, made: Made) -> None:
        """One that is new."""
        self.made.append(made)
        self._done += 1
        self._bytes += made.num_bytes
        self._reporter.advance(1)
        if made.problem:
            self._reporter.note(made.problem)
        if len(self.made) % self._effort.report_every == 0:
            self._reporter.note(self._text())

    def _text(self) -> str:
        elapsed = time.monotonic() - self._started
        each = elapsed / len(self.made)
        left = [] if self._effort.seconds is None else [max(0.0, self._effort.seconds - elapsed)]
        if self._total is not None:
            left.append((self._total - self._done) * each)
        of = "" if self._total is None else f" of {self._total:,}"
        return (
            f"{self._done:,}{of} {self._unit}, {1 / each:.2f}/s, {elapsed:.0f} s gone, about {min(left):.0f} s left, "
            f"{self._bytes / len(self.made) / 1000:.1f} kB each, {self._bytes / 1e6:.1f} MB new"
        )
