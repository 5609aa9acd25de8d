"""Procedure videos as one more type of `synthesize`: the same files as the demo's, counted like the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.procedures.pouring import make_pouring
from reelwright.stages.synthesize.procedures.recordings import make_recordings
from reelwright.stages.synthesize.procedures.write import DatasetParameters, make_procedure_dataset
from reelwright.stages.synthesize.work import SynthesisResult
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.files import folder_bytes

LAYOUTS: dict[str, tuple[str, Callable[..., None]]] = {  # folder of the samples, and what writes them
    "videos": ("videos", make_procedure_dataset),
    "industreal": ("recordings", make_recordings),
    "pouring": ("videos", make_pouring),
}


def make_procedures(
    folder: Path,
    *,
    num_samples: int | None,
    num_val: int,
    num_test: int,
    workers: int,
    reporter: Reporter,
    seed: int = 0,
    size: int = 128,
    fps: float = 10.0,
    procedure: Mapping[str, Any] | None = None,
    layout: str = "videos",
) -> SynthesisResult:
    """Make ``num_samples`` procedure videos, ``num_val`` and ``num_test`` of them for these splits.

    ``procedure`` are settings (`ProcedureSettings`); ``layout`` is one of LAYOUTS.

    Raises ConfigError without a number of samples, with more in the splits than there are, or for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}.{nearest(layout, LAYOUTS)} Known: {', '.join(LAYOUTS)}")
    if num_samples is None or num_samples < num_val + num_test:
        raise ConfigError(
            f"procedure videos are made by number: give --samples, at least --val and --test together "
            f"({num_val + num_test}); it is {num_samples}"
        )
    counts: list[int] = []

    def advance(num_done: int, num_videos: int) -> None:
        if not counts:
            reporter.total(num_videos, "videos")
        reporter.advance(num_done - counts[-1] if counts else num_done)
        counts.append(num_done)

    started = time.monotonic()
    place, write = LAYOUTS[layout]
    counts_of_splits = (num_samples - num_val - num_test, num_val, num_test)
    parameters = DatasetParameters(*counts_of_splits, seed, size, size, float(fps), procedure=dict(procedure or {}))
    write(folder, parameters, workers=workers, progress=advance)
    report = {
        "samples": num_samples,
        "files": num_samples,
        "bytes": folder_bytes(folder / place),
        "process_seconds": round(time.monotonic() - started, 3),
        "rejected_degenerate_draws": 0,
        "given_up": [],
    }
    return SynthesisResult(folder=folder, num_new=num_samples - counts[0], num_found=counts[0], report=report)
