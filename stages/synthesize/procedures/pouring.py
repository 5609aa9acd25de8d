"""Procedure videos in the layout of Pouring, as CARL reads it: a stand-in for it, with phases as labels of frames.

folder/
  videos/, dataset.json, manifest.csv, segments.csv, steps.csv    as `write.py` leaves them
  train.pkl, val.pkl (and test.pkl)    lists of {id, name, video_file, frame_label, seq_len}
  phases.csv                           label,phase: what the numbers of frame_label stand for
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from reelwright.stages.synthesize.ledger import write_rows
from reelwright.stages.synthesize.procedures.life import kit_of
from reelwright.stages.synthesize.procedures.script import CHECK, IDLE, PUT_BACK, Script
from reelwright.stages.synthesize.procedures.write import (
    SPLITS,
    DatasetParameters,
    Progress,
    list_jobs,
    make_procedure_dataset,
)
from reelwright.storage.files import replacing


def make_pouring(
    folder: Path, parameters: DatasetParameters, *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Write all videos and the lists of them; what is there is kept. ``progress(num_done, num_all)``.

    Raises InputError when the folder holds a data set of other parameters or files that are not ours.
    """
    make_procedure_dataset(
        folder,
        num_train=parameters.num_train,
        num_val=parameters.num_val,
        num_test=parameters.num_test,
        seed=parameters.seed,
        size=(parameters.height, parameters.width),
        fps=parameters.fps,
        procedure=parameters.procedure,
        workers=workers,
        progress=progress,
    )
    import torch  # takes a second, and is of the lists alone

    phases = phases_of(parameters)
    write_rows(folder / "phases.csv", ("label", "phase"), enumerate(phases))
    for split in SPLITS:
        entries = []
        for job in (job for job in list_jobs(parameters) if job.split == split):
            labels = frame_labels(job.script_and_look()[0], phases)
            entry = {"id": job.index, "name": job.video_id, "video_file": job.path}
            entries.append({**entry, "frame_label": torch.from_numpy(labels), "seq_len": len(labels)})
        if entries:
            with replacing(folder / f"{split}.pkl") as temporary, temporary.open("wb") as file:
                pickle.dump(entries, file)


def phases_of(parameters: DatasetParameters) -> tuple[str, ...]:
    """Names of the phases by their numbers."""
    settings = parameters.settings
    return (IDLE, *kit_of(settings).phases.values(), PUT_BACK, *((CHECK,) if settings.is_scripted_long else ()))


def frame_labels(script: Script, phases: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(T,) int64: the number of the phase in which each frame is shown."""
    starts = np.array([segment.start_seconds for segment in script.segments])
    numbers = np.array([phases.index(segment.label) for segment in script.segments], dtype=np.int64)
    seconds = np.arange(script.num_frames) / script.fps
    # Start times are whole milliseconds: a frame shown at one belongs to what starts there, whatever floats make of it.
    return numbers[np.searchsorted(starts, seconds + 1e-9, side="right") - 1]
