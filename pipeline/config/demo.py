"""The demo: made-up procedure videos and the pipeline file that runs the whole chain on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.stages.base.registry import load
from reelwright.storage.files import write_text

NUM_VIDEOS = {"num_train": 24, "num_val": 6, "num_test": 8}


def prepare_demo(
    folder: Path, *, overrides: Sequence[str], workers: int, progress: Callable[[int, int], None] | None = None
) -> PipelineFile:
    """Make the videos (skipped where they are finished) and the pipeline file in ``folder``.

    A pipeline file that is there already is kept: it may have been edited. Raises ConfigError, before anything is made,
    for settings that are not right, and when ``folder/data`` holds videos made with other parameters.
    """
    path = folder / "reelwright.yaml"
    if not path.exists():
        write_text(path, read_recipe("demo"))
    file = load_pipeline(path.absolute(), overrides)
    module = "reelwright.stages.synthesize.procedures.write"
    parameters = load(f"{module}:DatasetParameters")(**NUM_VIDEOS)
    load(f"{module}:make_procedure_dataset")(folder / "data", parameters, workers=workers, progress=progress)
    return file
