"""Made-up data: that of the demo, and stand-ins for that of recipes with the tables that `prepare` makes of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from reelwright.pipeline.config.pipeline_file import PipelineFile, load_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.stages.base.registry import load
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.family_settings import ActionsConfig, FractalConfig
from reelwright.stages.synthesize.ledger import write_rows
from reelwright.storage.files import write_text

Progress = Callable[[int, int], None]

_PROCEDURES = "reelwright.stages.synthesize.procedures"
DEMO_SIZES = {"num_train": 24, "num_val": 6, "num_test": 8}
PSR_SIZES = {"num_train": 24, "num_val": 6, "num_test": 8, "seed": 0, "height": 128, "width": 128, "fps": 10.0}
CARL_SIZES = {"num_train": 40, "num_val": 14, "num_test": 0, "seed": 0, "height": 128, "width": 128, "fps": 10.0}
CARL_PROCEDURE = {
    "usual_order": True,
    "gap_seconds": 5.0,
}  # one order, as Pouring has; how long each part takes differs

FRACTAL_SIZES = {"size": 64, "num_classes": 16, "per_class": 20, "num_train": 4, "num_test": 6, "num_more": 0}
FRACTAL_POINTS = FractalConfig(num_points=4096)  # of 64 pixels
FRACTAL_TARGET = ActionsConfig(
    num_frames=16,
    verbs=("appear", "vanish", "grow", "shrink"),  # directions take more videos
    nouns=("striped_disc", "dotted_star", "checked_cross", "dotted_bar"),
    num_distractors=0,
    radius=(0.18, 0.2),  # large, on a plain ground: what networks from nothing learn at all within minutes
    ground="dark",
    acting=(0.7, 1.0),
    jitter=0.0,
    noise=3.0,
)


def prepare_demo(
    folder: Path, *, overrides: Sequence[str], workers: int, progress: Progress | None = None
) -> PipelineFile:
    """Make the videos (skipped where they are finished) and the pipeline file in ``folder``.

    A pipeline file that is there already is kept: it may have been edited. Raises ConfigError, before anything is made,
    for settings that are not right, and when ``folder/data`` holds videos made with other parameters.
    """
    path = folder / "reelwright.yaml"
    if not path.exists():
        write_text(path, read_recipe("demo"))
    file = load_pipeline(path.absolute(), overrides)
    parameters = load(f"{_PROCEDURES}.write:DatasetParameters")(**DEMO_SIZES)
    load(f"{_PROCEDURES}.write:make_procedure_dataset")(folder / "data", parameters, workers=workers, progress=progress)
    return file


def make_psr(folder: Path, *, workers: int, progress: Progress | None = None, **sizes: float) -> None:
    """Recordings in the layout of IndustReal in ``folder``/data, and ``folder``/tables; what is there is kept.

    ``sizes`` are parameters of the data set (`DatasetParameters`) that are to be other than PSR_SIZES.
    """
    parameters = load(f"{_PROCEDURES}.write:DatasetParameters")(**{**PSR_SIZES, **sizes})
    data = folder / "data"
    load(f"{_PROCEDURES}.recordings:make_recordings")(data, parameters, workers=workers, progress=progress)
    request = load("reelwright.stages.prepare.recordings:RecordingsRequest")(
        procedure=data / "procedure.yaml", root=data, out=folder / "tables"
    )
    load("reelwright.stages.prepare.recordings:prepare_recordings")(request)


def make_carl(folder: Path, *, workers: int, progress: Progress | None = None, **sizes: float) -> None:
    """Videos in the layout of Pouring in ``folder``/data, and ``folder``/tables; what is there is kept.

    ``sizes`` are parameters of the data set (`DatasetParameters`) that are to be other than CARL_SIZES.
    """
    given = {**CARL_SIZES, "procedure": CARL_PROCEDURE, **sizes}
    parameters = load(f"{_PROCEDURES}.write:DatasetParameters")(**given)
    data = folder / "data"
    load(f"{_PROCEDURES}.pouring:make_pouring")(data, parameters, workers=workers, progress=progress)
    request = load("reelwright.stages.prepare.work:PrepareRequest")(
        dataset="pouring", root=data, out=folder / "tables", workers=workers
    )
    load("reelwright.stages.prepare.work:prepare")(request, SilentReporter())


def make_fractal(folder: Path, *, workers: int, progress: Progress | None = None, **sizes: int) -> None:
    """Fractals and actions in ``folder``/data, and ``folder``/tables/manifest.csv of both; what is there is kept.

    Fractals are of the split `fractals` and have their class in the column `fractal`; actions are of train and test
    (and more, with ``num_more``), so many of each verb with each noun, and have the columns verb and noun. ``sizes``
    are those of FRACTAL_SIZES that are to be other.
    """
    wanted = {**FRACTAL_SIZES, **sizes}
    size, data = wanted["size"], folder / "data"
    fractals = SynthesizeConfig(family="fractal", size=size, fractal=FRACTAL_POINTS)
    actions = SynthesizeConfig(
        family="actions",
        size=size,
        fps=6,
        num_val=wanted["num_train"],
        num_test=wanted["num_test"],
        actions=FRACTAL_TARGET,
    )
    pairs = len(FRACTAL_TARGET.verbs) * len(FRACTAL_TARGET.nouns)
    num_actions = pairs * (wanted["num_train"] + wanted["num_test"] + wanted["num_more"])
    num_fractals = wanted["num_classes"] * wanted["per_class"]
    reporter = _Counted(num_actions + num_fractals, progress)
    synthesize = load("reelwright.stages.synthesize.work:synthesize")
    effort = load("reelwright.stages.synthesize.work:Effort")
    load("reelwright.stages.synthesize.work:synthesize_classes")(
        data / "classes", fractals, num_classes=wanted["num_classes"], workers=workers, reporter=SilentReporter()
    )
    synthesize(data / "actions", actions, effort=effort(num_samples=num_actions, workers=workers), reporter=reporter)
    synthesize(
        data / "fractals",
        fractals,
        effort=effort(num_samples=num_fractals, workers=workers),
        reporter=reporter,
        classes=data / "classes",
    )
    of_actions = {"val": "train", "test": "test", "train": "more"}  # the first ones of each pair are few, and learnt
    rows = [
        (f"{name}/{row['video_id']}", f"../data/{name}/{row['path']}", split, fractal, row.get("verb"), row.get("noun"))
        for name in ("actions", "fractals")
        for row in csv.DictReader((data / name / "manifest.csv").read_text(encoding="utf-8").splitlines())
        for split, fractal in ([(of_actions[row["split"]], "")] if name == "actions" else [("fractals", row["label"])])
    ]
    write_rows(folder / "tables" / "manifest.csv", ("video_id", "path", "split", "fractal", "verb", "noun"), rows)


class _Counted(SilentReporter):
    """Tells ``progress`` how many of ``num_all`` are done."""

    def __init__(self, num_all: int, progress: Progress | None) -> None:
        super().__init__()
        self._num_all, self._progress, self._done = num_all, progress, 0

    def advance(self, amount: int) -> None:
        """Count."""
        self._done += amount
        if self._progress is not None:
            self._progress(self._done, self._num_all)


STAND_INS: dict[str, Callable[..., None]] = {"carl": make_carl, "fractal": make_fractal, "psr": make_psr}  # by recipe
