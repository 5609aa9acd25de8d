"""Make what is missing of the videos of a pipeline, through the code of the command."""

from __future__ import annotations

from dataclasses import replace

from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.config import PROCEDURE
from reelwright.stages.synthesize.ledger import Made, Present, appending, listed
from reelwright.stages.synthesize.procedures.make import make_procedures
from reelwright.stages.synthesize.procedures.write import DatasetParameters, describe, list_jobs
from reelwright.stages.synthesize.source import SyntheticSet
from reelwright.stages.synthesize.spread import Spread, spread
from reelwright.stages.synthesize.work import Effort, SynthesisResult, synthesize, synthesize_classes
from reelwright.storage.bucket.download_cache import local_file
from reelwright.storage.errors import StageError


def supply(wanted: SyntheticSet, *, workers: int, reporter: Reporter, by: Spread = spread) -> SynthesisResult:
    """Make the samples that are missing, and the classes before them; one call at a time for a set.

    ``workers`` are processes of this machine, where ``by`` uses it.

    Raises StageError where a class cannot be drawn.
    """
    config = wanted.config
    if config.family == PROCEDURE:
        return _supply_procedures(wanted, workers=workers, reporter=reporter, by=by)
    if config.num_classes is not None:
        assert wanted.class_folder is not None
        drawn = synthesize_classes(
            wanted.class_folder,
            config.generator,
            num_classes=config.num_classes,
            workers=workers,
            reporter=reporter,
            by=by,
        )
        if drawn.num_given_up:
            message = drawn.report["given_up"][0]["problem"]
            raise StageError(f"videos.synthesize: {message}. Choose another seed, or other settings of {config.family}")
    effort = Effort(num_samples=config.samples, workers=workers)
    return synthesize(
        wanted.folder, config.generator, effort=effort, reporter=reporter, classes=wanted.class_folder, by=by
    )


def _supply_procedures(wanted: SyntheticSet, *, workers: int, reporter: Reporter, by: Spread) -> SynthesisResult:
    """Procedure videos have no ledger of their own: here it says what their content was."""
    config, folder = wanted.config, wanted.folder
    num_train = config.samples - config.num_val - config.num_test
    parameters = DatasetParameters(
        num_train, config.num_val, config.num_test, config.seed, config.size, config.size, config.fps
    )
    parameters = replace(parameters, procedure=config.procedure.changed())
    new: list[Made] = []
    outcome = make_procedures(
        folder,
        num_samples=config.samples,
        num_val=config.num_val,
        num_test=config.num_test,
        workers=workers,
        reporter=reporter,
        seed=config.seed,
        size=config.size,
        fps=config.fps,
        procedure=config.procedure.changed(),
        note=new.append,
        by=by,
    )
    with appending(folder) as append:  # now that the tables have them
        for made in new:
            append(made)
    known, present = listed(folder), Present.of(folder)
    with appending(folder) as append:
        for job in list_jobs(parameters):
            if job.video_id not in known or not present.is_whole(known[job.video_id]):  # made by a call that was killed
                append(describe(job, local_file(f"{wanted.place}/{job.path}")))
    return outcome
