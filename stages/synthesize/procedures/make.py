"""The demo's procedure videos as one more type of `synthesize`: the same files, counted like the others."""

from __future__ import annotations

import time
from pathlib import Path

from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.procedures.write import make_procedure_dataset
from reelwright.stages.synthesize.work import SynthesisResult
from reelwright.storage.errors import ConfigError
from reelwright.storage.files import folder_bytes


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
) -> SynthesisResult:
    """Make ``num_samples`` procedure videos, ``num_val`` and ``num_test`` of them for these splits.

    Raises ConfigError without a number of samples or with more in the splits than there are.
    """
    if num_samples is None or num_samples < num_val + num_test:
        raise ConfigError(
            f"procedure videos are made by number: give --samples, at least --val and --test together "
            f"({num_val + num_test}); it is {num_samples}"
        )
    counts: list[int] = []

    def tell(num_done: int, num_videos: int) -> None:
        if not counts:
            reporter.total(num_videos, "videos")
        reporter.advance(num_done - counts[-1] if counts else num_done)
        counts.append(num_done)

    started = time.monotonic()
    make_procedure_dataset(
        folder,
        num_train=num_samples - num_val - num_test,
        num_val=num_val,
        num_test=num_test,
        seed=seed,
        size=(size, size),
        fps=fps,
        workers=workers,
        progress=tell,
    )
    report = {
        "samples": num_samples,
        "files": num_samples,
        "bytes": folder_bytes(folder / "videos"),
        "process_seconds": round(time.monotonic() - started, 3),
        "rejected_degenerate_draws": 0,
        "given_up": [],
    }
    return SynthesisResult(folder=folder, num_new=num_samples - counts[0], num_found=counts[0], report=report)
