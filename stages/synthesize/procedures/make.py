"""Procedure videos as one more type of `synthesize`, counted like the others, and their layouts beside recordings.

The layout of Pouring, a stand-in for the data of CARL:

    folder/
      videos/SPLIT_NN.mp4       and the tables of `write`
      train.pkl, val.pkl        [{id, name, video_file, frame_label, seq_len}, ...]; plain lists and numbers

A phase a frame: how many parts are mounted rightly, so that phases lie between key events, and come in order where
nothing is undone, as in Pouring.
"""

from __future__ import annotations

import math
import pickle
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter
from reelwright.stages.synthesize.procedures.recordings import make_recordings
from reelwright.stages.synthesize.procedures.script import Script
from reelwright.stages.synthesize.procedures.write import (
    DatasetParameters,
    Progress,
    VideoJob,
    list_jobs,
    make_procedure_dataset,
)
from reelwright.stages.synthesize.work import SynthesisResult
from reelwright.storage.errors import ConfigError, nearest
from reelwright.storage.files import folder_bytes, replacing

SPLITS = ("train", "val")


def make_pouring(
    folder: Path, parameters: DatasetParameters, *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Videos and lists; videos that are there are kept. ``progress(num_done, num_all)``.

    Raises InputError when the folder holds a data set of other parameters or files that are not ours.
    """
    make_procedure_dataset(folder, replace(parameters, num_test=0), workers=workers, progress=progress)
    for split in SPLITS:
        jobs = [job for job in list_jobs(parameters) if job.split == split]
        with replacing(folder / f"{split}.pkl") as place:
            place.write_bytes(pickle.dumps([_entry(number, job) for number, job in enumerate(jobs)]))


def _entry(number: int, job: VideoJob) -> dict[str, Any]:
    script, _ = job.script_and_look()
    labels = phases(script)
    name = job.video_id
    return {"id": number, "name": name, "video_file": job.path, "frame_label": labels, "seq_len": len(labels)}


def phases(script: Script) -> list[int]:
    """Of every frame, how many parts are mounted rightly in it: from the first one at or after the time of a change."""
    firsts = [math.ceil(seconds * script.fps - 1e-6) for seconds, _ in script.states]
    counts = [sum(value == 1 for value in state) for _, state in script.states]
    return [counts[bisect_right(firsts, frame) - 1] for frame in range(script.num_frames)]


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

    Raises ConfigError without a number of samples, with more in the splits than there are, for an unknown layout, or a
    split that it does not have.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}.{nearest(layout, LAYOUTS)} Known: {', '.join(LAYOUTS)}")
    if num_samples is None or num_samples < num_val + num_test:
        raise ConfigError(
            f"procedure videos are made by number: give --samples, at least --val and --test together "
            f"({num_val + num_test}); it is {num_samples}"
        )
    if layout == "pouring" and num_test:
        raise ConfigError(f"layout pouring has the splits {' and '.join(SPLITS)} alone: leave --test {num_test} out")
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
