"""Stand-ins for the data of a recipe: made-up recordings, and the tables that `prepare` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reelwright.stages.base.registry import load
from reelwright.stages.base.work import SilentReporter

Progress = Callable[[int, int], None]

PSR_SIZES = {"num_train": 24, "num_val": 6, "num_test": 8, "seed": 0, "height": 128, "width": 128, "fps": 10.0}
CARL_SIZES = {"num_train": 40, "num_val": 14, "num_test": 0, "seed": 0, "height": 128, "width": 128, "fps": 10.0}
CARL_PROCEDURE = {
    "usual_order": True,
    "gap_seconds": 5.0,
}  # one order, as Pouring has; how long each part takes differs


def make_psr(folder: Path, *, workers: int, progress: Progress | None = None, **sizes: float) -> None:
    """Recordings in the layout of IndustReal in ``folder``/data, and ``folder``/tables; what is there is kept.

    ``sizes`` are parameters of the data set (`DatasetParameters`) that are to be other than PSR_SIZES.
    """
    parameters = load("reelwright.stages.synthesize.procedures.write:DatasetParameters")(**{**PSR_SIZES, **sizes})
    data = folder / "data"
    load("reelwright.stages.synthesize.procedures.recordings:make_recordings")(
        data, parameters, workers=workers, progress=progress
    )
    request = load("reelwright.stages.prepare.recordings:RecordingsRequest")(
        procedure=data / "procedure.yaml", root=data, out=folder / "tables"
    )
    load("reelwright.stages.prepare.recordings:prepare_recordings")(request)


def make_carl(folder: Path, *, workers: int, progress: Progress | None = None, **sizes: float) -> None:
    """Videos in the layout of Pouring in ``folder``/data, and ``folder``/tables; what is there is kept.

    ``sizes`` are parameters of the data set (`DatasetParameters`) that are to be other than CARL_SIZES.
    """
    given = {**CARL_SIZES, "procedure": CARL_PROCEDURE, **sizes}
    parameters = load("reelwright.stages.synthesize.procedures.write:DatasetParameters")(**given)
    data = folder / "data"
    load("reelwright.stages.synthesize.procedures.pouring:make_pouring")(
        data, parameters, workers=workers, progress=progress
    )
    request = load("reelwright.stages.prepare.work:PrepareRequest")(
        dataset="pouring", root=data, out=folder / "tables", workers=workers
    )
    load("reelwright.stages.prepare.work:prepare")(request, SilentReporter())


STAND_INS: dict[str, Callable[..., None]] = {"carl": make_carl, "psr": make_psr}  # by recipe
