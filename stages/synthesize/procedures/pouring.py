"""Procedure videos in the layout of Pouring: a stand-in for the data of CARL.

    folder/
      videos/SPLIT_NN.mp4       and the tables of `write`
      train.pkl, val.pkl        [{id, name, video_file, frame_label, seq_len}, ...]; plain lists and numbers

A phase a frame: how many parts are mounted rightly, so that phases lie between key events, and come in order where
nothing is undone, as in Pouring.
"""

from __future__ import annotations

import math
import pickle
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import Any

from reelwright.stages.synthesize.procedures.script import Script
from reelwright.stages.synthesize.procedures.write import (
    DatasetParameters,
    Progress,
    VideoJob,
    list_jobs,
    make_procedure_dataset,
)
from reelwright.storage.files import replacing

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
